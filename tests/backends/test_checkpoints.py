"""Checkpoints while their workers write: at whatever moment one is abandoned or a worker goes on, nothing is torn."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic_ns as now_ns
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from asgd_lab.backends import event_log
from asgd_lab.backends.build import build_algorithm, build_task, build_worker
from asgd_lab.backends.real.carrier import Carrier
from asgd_lab.backends.real.checkpoints import Checkpointer
from asgd_lab.backends.real.transport import Closed, Heard, Saved, Told, Welcome
from asgd_lab.protocol.messages import Ack, FetchRequest, Grant, Join
from asgd_lab.record import atomic_files, checkpoints
from asgd_lab.record.rowfile import RowFile
from tests.benchmarks.planned import plan

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


class Scripted:
    """A worker's end whose server is a script, resumed whenever the worker waits for more than has come."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.inbox: deque[Any] = deque()
        self.script: Iterator[None] = iter(())

    def begin(self) -> None:
        """Nothing."""

    def send(self, message: Any, sent_ns: int = 0, received_ns: int = 0, behind: Any = None) -> None:
        self.sent += [message] if behind is None else [message, behind]

    def hear(self) -> Told:
        while not self.inbox:
            next(self.script)
        return self.inbox.popleft(), 0, 0

    def center(self, grant: Grant) -> torch.Tensor:
        return torch.zeros(4)

    def last(self, kind: type) -> Any:
        return next(message for message in reversed(self.sent) if type(message) is kind)


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
    task, algorithm = build_task(stated), build_algorithm(stated)
    prepared = plan(stated, run_dir, task.size)
    heartbeat: Any = SimpleNamespace(at_disk=lambda: None)
    logged: Any = SimpleNamespace(server=server)
    end: Any = Scripted()
    checkpointer = Checkpointer(prepared, logged, heartbeat, lambda worker, save: end.inbox.append(save))
    server.version = 1
    written: list[int] = []

    def save(checkpoint: int) -> bool:
        written.append(checkpoint)
        if len(written) == 1 and granted == "while it writes":
            grant()
        done = checkpoints.write(run_dir, checkpoint, "worker-0", {"time": np.int64(len(written))})
        if len(written) == 1 and granted == "before its word is heard":
            grant()
        return done

    def grant() -> None:
        server.waiting = frozenset()
        checkpointer.granted(0)
        end.inbox.append(Grant(0, 1, 1, 0, 1))

    def script() -> Iterator[None]:
        end.inbox.append(Welcome(0, 1, 7, 0, 0, 0, now_ns()))
        yield
        assert end.last(FetchRequest).number == 1
        checkpointer.look(1)
        if granted == "before it hears of the checkpoint":
            grant()
        yield
        assert len(written) == 1
        checkpointer.saved(end.last(Saved))
        end.inbox.append(Ack(0, 1, 1, 1, 0, 1))
        yield
        fetch = Heard(0, end.last(FetchRequest))
        assert end.last(FetchRequest).number == 2
        checkpointer.hold(fetch)
        assert checkpointer.finish(2) == []
        assert checkpoints.all_of(run_dir) == [], "the worker has gone on since it wrote that"
        yield
        checkpointer.saved(end.last(Saved))
        assert checkpointer.finish(3) == [fetch]
        raise Closed

    end.script = script()
    carrier = Carrier(prepared, 0, 0, end, algorithm, save)
    worker = build_worker(task, algorithm, 0, task.initial(), [task.initial()])
    carrier.join(worker, Join(0, 7), 7)
    worker.client.begin(1, 0, 0)
    with pytest.raises(Closed):
        carrier.carry()
    (checkpoint,) = checkpoints.all_of(run_dir)
    assert checkpoints.read(checkpoint, "worker-0")["time"] == 2
    carrier.close()
    prepared.close()
