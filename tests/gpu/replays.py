"""Section 9: two workers on one GPU, deterministic algorithms: does the record repeat to the bit?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.scenario import Scenario
from tests.gpu import networks
from tests.gpu.place import Failed, Place


def measure(place: Place, folder: Path) -> Iterator[dict[str, Any]]:
    """A row a network: each push and some versions are compared, and the final parameters."""
    wrong = []
    minibatches = place.size(400, 12)
    tasks = {
        "convolutions with dropout": networks.of_images("Dropping", *place.size((512, 32, 32), (16, 8, 4))),
        "transformer": networks.transformer(place),
        "transformer in bfloat16": networks.transformer(place) | {"precision": "bfloat16"},
    }
    for name, task in tasks.items():
        scenario = Scenario.model_validate({
            "name": "replays", "task": task, "algorithm": {"name": "asgd", "n_sync": 3}, "workers": 2,
            "budget": {"minibatches": minibatches},
            "backend": place.backend(deterministic=True, digest_every_updates=10),
        })  # fmt: skip
        out = folder / name.replace(" ", "-")
        summary = execute(scenario, out)
        verdict = repeat(scenario, out)
        yield {
            "what": name, "same_bits": verdict.difference is None and verdict.final, "difference": verdict.difference,
            "pushes": verdict.pushes, "versions_compared": verdict.digests,
            "staleness_mean": summary["staleness"]["mean"],
        }  # fmt: skip
        if verdict.difference is not None:
            wrong.append(f"{name}: {verdict.difference}")
    if wrong:
        raise Failed("; ".join(wrong))
