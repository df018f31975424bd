"""What one GPU does: speed and memory of sampling, scoring and training, at 8B parameters.

    python -m bench.gpu --out gpu.json            on a card of 80 GB, within 7 minutes
    python -m bench.gpu --out gpu.json --toy      the same on a tiny model, on any machine

Weights are random and made on the card, so nothing here tells what a model says or learns. Each
section of `bench.gpu_sections` may fail, or run out of its time, without the others: the file is
written anew after each.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from bench import gpu_sections
from bench.gpu_card import FULL, TOY, Bench

SECTIONS = {
    "environment": 120,
    "entropy": 60,
    "decode": 70,
    "passes": 80,
    "shared": 60,
    "step": 170,
    "skewed": 50,
}
"""In the order in which they run, and seconds that each may take at most."""


def run(bench: Bench, names: list[str], seconds: float, out: Path) -> dict[str, Any]:
    """Every section in turn, until the time is up."""
    end = time.monotonic() + seconds
    sections: dict[str, Any] = {}
    result = {"scale": bench.scale.name, "device": bench.device, "sections": sections}
    signal.signal(signal.SIGALRM, _time_is_up)
    for name in names:
        rows: list[dict[str, Any]] = []
        sections[name] = {"rows": rows}
        began = time.monotonic()
        budget = min(SECTIONS[name], end - began)
        if budget > 1:
            sections[name] |= _attempt(name, bench, rows, budget)
        else:
            sections[name]["error"] = "not begun: no time is left"
        sections[name]["seconds"] = round(time.monotonic() - began, 2)
        said = sections[name].get("error", "").strip().splitlines()[-1:]
        print(f"{name}: {sections[name]['seconds']} s, {len(rows)} rows", *said, flush=True)
        write(out, result)
    return result


def _attempt(name: str, bench: Bench, rows: list[dict[str, Any]], budget: float) -> dict[str, str]:
    """Runs a section, which adds rows as it goes; what went wrong, if anything."""
    failed = {}
    bench.end = time.monotonic() + budget * 0.9  # no new case after that
    signal.setitimer(signal.ITIMER_REAL, budget)
    try:
        getattr(gpu_sections, name)(bench, rows)
    except Exception:  # whatever it is, it is the result
        failed["error"] = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    gc.collect()
    bench.release()
    return failed


def _time_is_up(*_: Any) -> None:
    raise TimeoutError("the section's time is up")


def write(out: Path, result: dict[str, Any]) -> None:
    """The file appears whole; it needs no package, so that a machine that lacks one says so."""
    partial = out.with_name(out.name + ".partial")
    partial.write_text(json.dumps(result, indent=1, default=str) + "\n")
    partial.replace(out)


def main(arguments: list[str] | None = None) -> int:
    """Runs the bench; 1 where a section failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--toy", action="store_true", help="a tiny model")
    parser.add_argument("--seconds", type=float, default=420)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    chosen = parser.parse_args(arguments)
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    bench = Bench(TOY if chosen.toy else FULL)
    if bench.device == "cpu" and not chosen.toy:
        parser.error("there is no GPU here: add --toy")
    result = run(bench, chosen.only, chosen.seconds, chosen.out)
    return int(any("error" in section for section in result["sections"].values()))


if __name__ == "__main__":
    sys.exit(main())
