"""Recorded runs as TensorBoard's files: every scalar is there, with its step and its time."""

from __future__ import annotations

import builtins
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto import event_pb2

from asgd_lab.record import tables
from asgd_lab.record.run import read_summary
from tests.backends.scenarios import DIGITS, run
from tests.cli.harness import asgd_lab


def events(folder: Path) -> Iterator[Any]:
    """What the file holds: records of a length, its checksum, an event, and its checksum."""
    (path,) = folder.glob("events.out.tfevents.*")
    content, at = path.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack_from("Q", content, at)
        yield event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
        at += 16 + length


def test_every_scalar_of_a_run_is_written(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(out, backend="process", task=DIGITS, workers=2, evaluate={"every_minibatches": 20})
    assert asgd_lab("tensorboard", out, "--out", tmp_path / "board").status == 0
    (folder,) = (tmp_path / "board").iterdir()
    found: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for event in events(folder):
        for value in event.summary.value:
            found[value.tag].append((event.step, event.wall_time, value.simple_value))
    minibatches = tables.read(out, "minibatches")
    for worker, rows in minibatches.groupby("worker"):
        mine = found[f"loss/worker_{worker}"]
        assert [step for step, _, _ in mine] == rows["step"].tolist()
        assert [loss for _, _, loss in mine] == pytest.approx(rows["loss"].tolist())
        began = read_summary(out)["started_unix_s"]
        assert [time - began for _, time, _ in mine] == pytest.approx(rows["time_s"].tolist(), abs=1e-3)
    assert len(found["staleness"]) == read_summary(out)["updates"]
    assert len(found["test_error/server"]) >= 2


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "tensorboardX":
            raise ImportError(name)
        return known(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    said = asgd_lab("tensorboard", tmp_path)
    assert said.status == 2
    assert said.err == "tensorboard: needs the package tensorboardX; pip install 'asgd-lab[tensorboard]'\n"
