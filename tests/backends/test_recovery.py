"""Real processes under fire: killed, stopped and continued at random, and not an update is lost or counted twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asgd_lab.backends import devices
from tests.backends.chaos import Outcome, survive
from tests.backends.test_process import nothing_is_left
from tests.whole import sample

__all__ = ["nothing_is_left"]  # a fixture that pytest finds here


DOWNPOUR = {"name": "downpour", "n_fetch": 4, "n_push": 2, "depth": 3}
CASES: list[tuple[int, dict[str, Any]]] = [
    (1, {"name": "asgd", "n_sync": 3}),
    (2, {"name": "sync_sgd", "n_sync": 2}),
    (3, DOWNPOUR),
    (4, {"name": "ssp", "n_sync": 2, "bound": 1}),
    (5, {"name": "asgd", "n_fetch": 5, "n_push": 3}),
]
STAGED: list[tuple[int, dict[str, Any]]] = [(6, {"name": "asgd", "n_sync": 3}), (7, DOWNPOUR)]


@pytest.mark.parametrize(
    ("seed", "algorithm"),
    sample(CASES, 2, seed=4),
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_every_acknowledged_update_is_in_once_whoever_dies(
    tmp_path: Path, seed: int, algorithm: dict[str, Any]
) -> None:
    """Each minibatch adds 1 to a parameter of its own; so the parameters tell which were applied, and how often."""
    check(under_fire(tmp_path, seed, algorithm, seconds=7.0))


@pytest.mark.parametrize(
    ("seed", "algorithm"),
    sample(STAGED, 1, seed=1),
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_updates_that_are_staged_from_another_device_are_in_once_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, algorithm: dict[str, Any]
) -> None:
    """Pushes and fetches whose copies go on beside the minibatches, by processes that die at any moment of them."""
    monkeypatch.setenv(devices.STAND_IN, "2")
    check(under_fire(tmp_path, seed, algorithm, seconds=5.0, device="cuda"))


def under_fire(folder: Path, seed: int, algorithm: dict[str, Any], seconds: float, device: str = "cpu") -> Outcome:
    """A run that was hit often enough: on a machine with other work, processes start too slowly for a short run."""
    for factor in (1, 2, 4):
        found = survive(folder / f"run-{factor}", seed, algorithm, workers=3, seconds=factor * seconds, device=device)
        if found.done.total() > 8:
            break
    return found


def check(found: Outcome) -> None:
    assert found.summary["status"] == "done"
    assert found.done.total() > 8, "next to nothing happened"
    assert found.versions == list(range(1, found.summary["updates"] + 1)), "versions without a gap"
    assert (found.lost, found.twice) == (0, 0)
    assert found.verdict.difference is None
    assert found.verdict.final
    due = 1 + found.summary["updates"] // 100
    lost = found.summary["faults"]["servers"]  # a server may die between a version and its hash
    assert due - lost <= found.verdict.digests <= due
