"""Checkpoints while their workers write: at whatever moment one is abandoned or a worker goes on, nothing is torn."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asgd_lab.backends import event_log
from asgd_lab.backends.real import channel
from asgd_lab.backends.real.channel import Answer, Ask, Request
from asgd_lab.backends.real.checkpoints import Checkpointer
from asgd_lab.backends.real.link import Link
from asgd_lab.record import atomic_files, checkpoints
from asgd_lab.record.rowfile import RowFile

from .scenarios import scenario


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / checkpoints.PARTS).mkdir()
    RowFile(tmp_path / checkpoints.EVENTS, event_log.FORMAT).close()
    return tmp_path


def names(run_dir: Path) -> list[str]:
    return sorted(str(path.relative_to(run_dir)) for path in (run_dir / checkpoints.FOLDER).rglob("*.np*"))


class Acting:
    """What a worker writes; acts when it is asked for its value, in the midst of the writing."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __array__(self, *_: Any, **__: Any) -> Any:
        self.act()
        return np.zeros(3)


MOMENTS = ["before the file is open", "while it is written", "before it has its name", "before its folder is synced"]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("end", ["abandoned", "committed without this worker", "abandoned, and the run is over"])
def test_a_worker_that_still_writes_its_part_goes_on_and_leaves_no_trace(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, moment: str, end: str
) -> None:
    def act() -> None:
        monkeypatch.undo()
        if end == "abandoned":
            checkpoints.begin(run_dir, 2)
            assert checkpoints.write(run_dir, 2, "worker-1", {"x": np.ones(3)})
        elif end == "committed without this worker":
            checkpoints.write(run_dir, 1, "server", {})
            checkpoints.commit(run_dir, 1, version=5, minibatches=5, elapsed_ns=5, workers=[], keep=1)
        else:
            checkpoints.abandon(run_dir)

    def first_act(do: Callable[..., object]) -> Callable[..., object]:
        return lambda *arguments: (act(), do(*arguments))

    checkpoints.begin(run_dir, 1)
    value: Any = np.zeros(3)
    match moment:
        case "before the file is open":
            act()
        case "while it is written":
            value = Acting(act)
        case "before it has its name":
            monkeypatch.setattr(os, "replace", first_act(os.replace))
        case "before its folder is synced":
            monkeypatch.setattr(atomic_files, "sync", first_act(atomic_files.sync))
    assert not checkpoints.write(run_dir, 1, "worker-1", {"x": value})
    if end == "abandoned":
        assert names(run_dir) == ["checkpoints/unfinished-2/worker-1.npz"]
        assert atomic_files.read_arrays(run_dir / names(run_dir)[0])["x"].tolist() == [1, 1, 1]
    elif end == "committed without this worker":
        (checkpoint,) = checkpoints.all_of(run_dir)
        assert set(checkpoints.check(checkpoint).files) == {"server.npz"}
        assert checkpoints.newest(run_dir, to_resume=True) == checkpoint
    else:
        assert names(run_dir) == []


def test_a_file_that_cannot_be_written_is_not_taken_for_an_abandoned_checkpoint(run_dir: Path) -> None:
    checkpoints.begin(run_dir, 1)
    with pytest.raises(FileNotFoundError):
        checkpoints.write(run_dir, 1, "absent/worker-1", {})


GRANTS = ["before it hears of the checkpoint", "while it writes", "before its word is heard"]


@pytest.mark.parametrize("granted", GRANTS)
def test_what_a_worker_wrote_before_its_gate_opened_is_in_no_checkpoint(run_dir: Path, granted: str) -> None:
    """The server tells a worker that waits at a gate to save; the gate opens; its word comes after that, of old."""
    backend = {"name": "process", "checkpoint": {"every_updates": 1}}
    stated = scenario(backend=backend, algorithm={"name": "ssp", "n_sync": 1, "bound": 1}, workers=1)
    server = SimpleNamespace(
        version=0, minibatches=1, finished=False, closed=False, members=frozenset({0}), waiting=frozenset({0}),
        parameters=None, standing=lambda worker: (1, 1),
    )  # fmt: skip
    theirs, ours = channel.pair()
    plan: Any = SimpleNamespace(scenario=stated, run_dir=run_dir, elapsed_ns=0)
    heartbeat: Any = SimpleNamespace(at_disk=lambda: None)
    logged: Any = SimpleNamespace(server=server)
    checkpointer = Checkpointer(plan, logged, heartbeat, lambda worker, answer: channel.answer(theirs, answer))
    server.version = 1
    written: list[int] = []

    def save(checkpoint: int) -> bool:
        written.append(checkpoint)
        if len(written) == 1 and granted == "while it writes":
            grant(1)
        done = checkpoints.write(run_dir, checkpoint, "worker-0", {"time": np.int64(len(written))})
        if len(written) == 1 and granted == "before its word is heard":
            grant(1)
        return done

    def grant(number: int) -> None:
        server.waiting = frozenset()
        checkpointer.granted(0)
        channel.answer(theirs, Answer(Ask.FETCH, number, 1))

    def hear() -> Request:
        request = channel.hear(theirs)
        assert request is not None
        if request.ask == Ask.SAVED:
            checkpointer.saved(0, request.number, request.detail)
        return request

    link = Link(ours, save)
    link.incarnation = 1
    first = link.ask(Request(Ask.FETCH, 1, 1, 0))
    assert hear().ask == Ask.FETCH
    checkpointer.look(1)
    if granted == "before it hears of the checkpoint":
        grant(1)
    link.wait(first)
    assert len(written) == 1
    second = link.ask(Request(Ask.FETCH, 1, 2, 0))
    assert hear().ask == Ask.SAVED
    request = hear()
    assert request.ask == Ask.FETCH
    checkpointer.hold(0, request)
    assert checkpointer.finish(2) == []
    assert checkpoints.all_of(run_dir) == [], "the worker has gone on since it wrote that"
    channel.answer(theirs, Answer(Ask.FETCH, 2, 1))
    link.wait(second)
    assert hear().ask == Ask.SAVED
    assert checkpointer.finish(3) == [(0, request)]
    (checkpoint,) = checkpoints.all_of(run_dir)
    assert checkpoints.read(checkpoint, "worker-0")["time"] == 2
    for end in (theirs, ours):
        end.close()
