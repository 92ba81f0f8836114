"""Files of data that change while a Python session goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import asgd_lab
from tests.api.scenarios import BOWL


def table(path: Path, shift: int) -> None:
    rows = [f"{(7 * number + shift) % 11},{number % 5},{(number + shift) % 2}" for number in range(80)]
    path.write_text("\n".join(["a,b,label", *rows]) + "\n")


def text(path: Path, shift: int) -> None:
    path.write_bytes(bytes((number * number + shift) % 97 for number in range(2000)))


def of_table(path: Path) -> dict[str, Any]:
    table(path, 0)
    return {
        "name": "classification", "dataset": "csv", "data_folder": str(path.parent), "model": "mlp", "batch_size": 8,
        "dataset_options": {"file": path.name},
    }  # fmt: skip


def of_text(path: Path) -> dict[str, Any]:
    text(path, 0)
    return {
        "name": "text",
        "data_folder": str(path),
        "context": 8,
        "batch_size": 2,
        "width": 8,
        "heads": 1,
        "layers": 1,
    }


@pytest.mark.parametrize(("stated", "write"), [(of_table, table), (of_text, text)])
def test_a_replay_notices_data_that_have_changed_in_the_same_session(tmp_path: Path, stated: Any, write: Any) -> None:
    path = tmp_path / "data.txt"
    run = asgd_lab.run({**BOWL, "task": stated(path)}, out=tmp_path / "run")
    assert asgd_lab.replay(run.path).same_bits
    write(path, 1)
    with pytest.raises(asgd_lab.ScenarioError, match=r"task\.dataset: the data have changed since; put it back"):
        asgd_lab.replay(run.path)
    write(path, 0)
    assert asgd_lab.replay(run.path).same_bits


def test_a_warm_start_is_made_again_when_the_data_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, found = tmp_path / "data.txt", []
    warm = {**BOWL, "task": of_table(path), "warm_start": {"minibatches": 20}, "budget": {"updates": 1}}
    for number, shift in enumerate((0, 1, 1)):
        table(path, shift)
        if number == 2:
            monkeypatch.setattr("asgd_lab.backends.build._warmed", {})  # as in another session
        found.append(asgd_lab.run(warm, out=tmp_path / str(number)).summary["params_sha256"])
    assert found[0] != found[1] == found[2]
