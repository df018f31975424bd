"""`sirl`: run the pipeline, plan it, look at it, promote its result, roll it back.

Nothing heavy is imported before it is needed: a run that changes nothing ends in seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from textwrap import shorten
from types import FrameType
from typing import Annotated, NoReturn

import typer

from flows import project
from flows.workplace import Workplace, opened
from sirl import errors, terminal

app = typer.Typer(
    help="Make a language model safer with no labels, and show that it worked.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Preset = Annotated[str | None, typer.Option(help="Settings of presets/ laid over params.yaml.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, section.key=value; repeatable.")
]


def main() -> None:
    """The command. What the user can mend is one line and exit code 2; Ctrl-C is 130, SIGTERM
    143."""
    terminal.begin("WARNING", "sirl: %(message)s")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, _terminated)
    try:
        app()
    except Exception as error:
        line = errors.line(error)
        if line is None or os.environ.get("SIRL_DEBUG"):
            sys.excepthook = terminal.show_traceback  # typer has put its own
            raise
        _fail(line, 2)


@app.callback()
def shared(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Make a language model safer with no labels, and show that it worked."""
    if debug:
        os.environ["SIRL_DEBUG"] = "1"


@app.command()
def run(
    preset: Preset = None,
    override: Overrides = None,
    to: Annotated[str | None, typer.Option(help="The last stage to bring up to date.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan alone.")] = False,
    no_promote: Annotated[
        bool, typer.Option("--no-promote", help="Leave the registry alone.")
    ] = False,
) -> None:
    """Bring every stage up to date, register the result and promote it if the gate allows.

    With --preset or --set the run works in a worktree of its own under .sirl/worktrees; your
    checkout stays as it is.
    """
    started = time.monotonic()
    checkout = project.find()
    with opened(checkout, preset, override or [], planning=dry_run) as place:
        if dry_run:
            _plan(place, to)
            return
        if place.root != checkout:
            _say(f"working in {place.root}; your checkout stays as it is")
        try:
            registry = _run(place, to, promoting=not no_promote and to is None)
        except KeyboardInterrupt:
            _fail("interrupted; finished stages are kept, and the next run goes on from here", 130)
        figures = [] if to else _figures(place)
        _summary(place, [*figures, *registry], time.monotonic() - started)


def _run(place: Workplace, to: str | None, *, promoting: bool) -> list[tuple[str, str]]:
    """The stages, then promotion where it is due; what promotion said, for the summary."""
    from flows import display, graph, pipeline, promotion

    graph.check(place, to)
    total = None if to else len(graph.names(place)) + promoting
    with display.opened(total) as report:
        pipeline.repro(place, to, report)
        if promoting and promotion.due(place):
            said = promotion.promote(place, report)
            return [("registry", shorten(line, 160)) for line in said]
        if promoting:
            report(pipeline.Event("unchanged", "promote"))
    return []


def _figures(place: Workplace) -> list[tuple[str, str]]:
    from flows import summary

    return list(summary.rows(place.layout))


def _summary(place: Workplace, rows: list[tuple[str, str]], seconds: float) -> None:
    from flows.display import duration

    artifacts = ("artifacts", str(place.layout.artifacts))
    shown = [*rows, artifacts, ("elapsed", duration(seconds))]
    width = max(len(name) for name, _ in shown) + 2
    _say("")
    for name, value in shown:
        _say(f"{name:{width}}{value}")


def _plan(place: Workplace, to: str | None) -> None:
    from flows import plan, shapes

    params, say = place.params, _say
    for stage, state in plan.stages(place, to).items():
        say(f"{stage:20}{state}")
    shape, device = shapes.of(params.base.model), plan.device(params)
    own = place.root != project.find()
    say(f"\nruns in             {'a worktree under .sirl/worktrees' if own else place.root}")
    say(f"device              {device.name}, {plan.gib(device.memory)}")
    if device.missing:
        say(f"lacking             {device.missing}")
    sizes = ", ".join(f"{split} {limit}" for split, limit in plan.prompts(params).items())
    say(f"prompts, at most    {sizes}")
    if shape is None:
        say("model               its size is not known before it is here")
        return
    parts = plan.training_memory(shape, params.train)
    need, want, free = sum(parts.values()), plan.disk(shape), plan.free_disk(place.root)
    say(f"model               {shape.parameters / 1e6:,.0f} M parameters")
    say(f"disk                about {plan.gib(want)}, {plan.gib(free)} free{_short(want, free)}")
    say(f"training memory     at least {plan.gib(need)}{_short(need, device.memory)}")
    for part, size in parts.items():
        say(f"  {part:26}{plan.gib(size):>10}")


def _short(need: int, have: int) -> str:
    return "" if need <= have else " - not enough"


@app.command()
def doctor() -> None:
    """Say what this machine has and lacks for a run, and how to mend it."""
    from flows import doctor as examination

    checkout = project.find()
    ill = False
    for finding in examination.examine(checkout, project.environment(checkout)):
        mark = "ok" if not finding.mend else "LACKS" if finding.needed else "note"
        ill |= mark == "LACKS"
        _say(f"{mark:6}{finding.name:18}{finding.found}")
        if finding.mend:
            _say(f"{'':24}-> {finding.mend}")
    raise typer.Exit(2 if ill else 0)


@app.command()
def attacks() -> None:
    """List the attacks: name, class, paper, and what each needs."""
    from sirl.attacks import KINDS

    head = ("name", "class", "paper", "needs")
    rows = [
        (kind.model_fields["name"].default, kind.attack_class, kind.paper, ", ".join(kind.needs))
        for kind in KINDS
    ]
    widths = [max(map(len, column)) + 2 for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        _say("".join(cells).rstrip())


@app.command()
def report(
    browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Two project folders whose runs are set side by side."),
    ] = None,
    experiments: Annotated[
        bool, typer.Option("--experiments", help="Every finished run of this project.")
    ] = False,
) -> None:
    """Say where the report is, or set runs side by side."""
    from flows import runs
    from sirl.errors import DataError
    from sirl.layout import Layout

    layout = Layout(project.find())
    if compare is not None:
        path = runs.compared(layout, *compare)
    elif experiments:
        path = runs.experiments(layout)
    else:
        path = layout.report
    if not path.is_file():
        raise DataError(f"{path} does not exist", "Make it: sirl run")
    _say(str(path))
    if browser:
        typer.launch(path.as_uri())


@app.command()
def promote(
    version: Annotated[
        str | None, typer.Option(help="A registered version; else the newest candidate.")
    ] = None,
) -> None:
    """Name a registered version champion, if its gate allows."""
    place = _registry()
    from tasks import promote as registry

    _say(registry.promote(place.params, place.layout, version=version))


@app.command()
def rollback() -> None:
    """Make the previous champion champion again; done twice it is done once."""
    place = _registry()
    from tasks import promote as registry

    _say(registry.rollback(place.params, place.layout))


@app.command()
def status() -> None:
    """Show what the registry's aliases name."""
    place = _registry()
    from tasks import promote as registry

    _say(registry.status(place.params, place.layout))


def _registry() -> Workplace:
    """The checkout, with the tracking address set for this process."""
    with opened(project.find(), None, [], planning=True) as place:
        os.environ["MLFLOW_TRACKING_URI"] = place.environment["MLFLOW_TRACKING_URI"]
        os.chdir(place.root)
        return place


def _say(text: str) -> None:
    """One line on standard output."""
    typer.echo(terminal.plain(text))


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """A signal ends us by an exception, so that what we started ends too."""
    raise SystemExit(128 + number)


def _fail(line: str, code: int) -> NoReturn:
    """One line on standard error, red on a terminal."""
    typer.secho(f"sirl: {line}", err=True, fg=typer.colors.RED)
    sys.exit(code)


if __name__ == "__main__":
    main()
