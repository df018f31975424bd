"""The one Prefect flow, `sirl`: a list of calls, each a DVC stage. DVC keeps the graph and the
cache; Prefect adds retries, a limit on who uses the device, logs and state."""

from __future__ import annotations

from prefect import flow, get_run_logger, runtime, task  # noqa: TID253 - only Prefect loads this
from prefect.cache_policies import NO_CACHE  # noqa: TID253
from prefect.client.schemas.objects import State  # noqa: TID253
from prefect.states import Completed  # noqa: TID253

from flows import graph, pipeline, project, promotion
from flows.pipeline import Event
from flows.workplace import Workplace, opened

GPU_TAG = "sirl-gpu"
"""Task runs with this tag share a concurrency limit, which flows.serve creates."""

ON_DEVICE = frozenset({"profile", "train", "attack", "capability"})
"""The stages that use the device."""

ON_NETWORK = frozenset({"base", "prepare", "promote"})
"""What a retry can help: it may fetch or send. Elsewhere a failure is deterministic."""

RETRY_SECONDS = 10
PROMOTE = "promote"


@flow(name="sirl", persist_result=False)
def sirl(preset: str | None = None, overrides: tuple[str, ...] = (), to: str = PROMOTE) -> None:
    """From prompts to a promoted checkpoint and a report.

    Args:
        preset: Name of a file of presets/, laid over params.yaml.
        overrides: `section.key=value` settings over that.
        to: The last stage; `promote` is everything.
    """
    with opened(
        project.find(), preset, overrides, SIRL_FLOW_RUN=str(runtime.flow_run.id or "")
    ) as place:
        order = graph.read(place, None if to == PROMOTE else to)
        stale = graph.stale(place)
        for stage in order:
            call(stage, place, stale=stage in stale)
            if stage in stale:
                stale = graph.stale(place)  # what ran may have changed the inputs of later ones
        if to == PROMOTE:
            call(PROMOTE, place, stale=promotion.due(place))


def call(stage: str, place: Workplace, *, stale: bool) -> None:
    """Runs one stage as a task run of its name, retried and limited as its kind wants."""
    name = stage.partition("@")[0]
    run_stage.with_options(
        tags={GPU_TAG} if stale and name in ON_DEVICE else set(),
        retries=2 if name in ON_NETWORK else 0,
        retry_delay_seconds=RETRY_SECONDS,
    )(stage, place, stale)


@task(task_run_name="{stage}", cache_policy=NO_CACHE, persist_result=False)
def run_stage(stage: str, place: Workplace, stale: bool) -> State[None]:
    """Brings one stage up to date; ends in state `Cached` where nothing had to be computed."""
    logger = get_run_logger()
    computed = False

    def report(event: Event) -> None:
        nonlocal computed
        computed |= event.kind == "running"
        if event.stage == stage or event.kind != "unchanged":
            logger.info("%s: %s", event.stage, event.text or event.kind)

    if stale and stage == PROMOTE:
        promotion.promote(place, report)
    elif stale:
        pipeline.repro(place, stage, report)
    return Completed(name=None if computed else "Cached")
