"""`python -m tests.benchmarks.text_minutes MINUTES`: the text task's test loss after so many minutes of a run's clock.

One real worker, two real ones, and eight simulated ones whose minibatches take as long as those of the one worker took.
Each real run is then repeated from its record, and the simulated one is run again. A real run takes MINUTES, and the
repeat of two workers twice as long. The simulated one computes eight workers' minibatches on one core: eight times
MINUTES, and so does its repeat; 22 times MINUTES in all. Results are kept in analysis/text_minutes.json, each case
as soon as it is over, in the place of its earlier one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.record.directory_names import file_name
from asgd_lab.record.machine import machine
from asgd_lab.scenario import Document

ROOT = Path(__file__).parents[2]
SCENARIO = ROOT / "scenarios" / "text-8-workers-simulated.yaml"
RESULTS = ROOT / "analysis" / "text_minutes.json"
CASES: dict[str, dict[str, Any]] = {
    "1 real worker": {"backend": "process", "workers": 1},
    "2 real workers": {"backend": "process", "workers": 2},
    "8 simulated workers": {"backend": "sim", "workers": 8},
}


def run(
    case: str, minutes: float, folder: Path, step_s: float | None, changes: dict[str, Any], replays: bool
) -> dict[str, Any]:
    """The result of a case; `step_s` is the time of a simulated minibatch."""
    stated = {**changes, **CASES[case], "budget": {"seconds": 60 * minutes}}
    if step_s is not None and stated["backend"] == "sim":
        stated["hardware.compute.step_s"] = step_s
    (point,) = Document.read(SCENARIO).points(stated)
    began = time.monotonic()
    summary = execute(point.scenario, folder)
    took_s = time.monotonic() - began
    found = {
        "case": case, "minutes": minutes, "minibatches": summary["minibatches"], "took_s": round(took_s, 1),
        "test_loss": summary["final"]["test_loss"], "test_bits_per_byte": summary["final"]["test_bits_per_byte"],
        "staleness_mean": summary["staleness"]["mean"], "step_s": step_s,
    }  # fmt: skip
    if replays and stated["backend"] == "sim":  # it has no record of its order: the same scenario gives the same bits
        again = execute(point.scenario, folder.with_name(f"{folder.name}-again"))
        found["replay_is_equal"] = again["params_sha256"] == summary["params_sha256"]
    elif replays:
        found["replay_is_equal"] = repeat(point.scenario, folder).difference is None
    return found


def main(arguments: Sequence[str]) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.text_minutes", description=__doc__)
    parser.add_argument("minutes", type=float, help="of each run's own clock")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES), help="all, if not given")
    parser.add_argument("--no-replay", action="store_true", help="do not repeat the runs from their records")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "text-minutes", help="for the run directories")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=JSON", help="changes of the scenario")
    given = parser.parse_args(arguments)
    changes = {key: json.loads(value) for key, _, value in (each.partition("=") for each in given.set)}
    kept = json.loads(given.results.read_text()) if given.results.exists() else []
    step_s = next(
        (60 * each["minutes"] / each["minibatches"] for each in kept if each["case"] == "1 real worker"), None
    )
    found = []
    for case in given.cases:
        folder = given.out / f"{file_name(case)}-{int(time.time())}"
        result = run(case, given.minutes, folder, step_s, changes, not given.no_replay) | {"machine": machine()["cpu"]}
        if case == "1 real worker":
            step_s = 60 * given.minutes / result["minibatches"]
        print(json.dumps(result), flush=True)
        found.append(result)
        kept = [each for each in kept if each["case"] != case] + [result]
        given.results.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
