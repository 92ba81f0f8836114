"""The process backend under faults: nothing is torn, nothing is lost, nothing is left behind."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from asgd_lab.backends import event_log
from asgd_lab.backends.event_log import Kind
from asgd_lab.backends.outcome import Progress
from asgd_lab.backends.real.transports.memory import Stack
from asgd_lab.backends.real.transports.shared_tensors import SharedTensors
from asgd_lab.backends.run import execute
from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.record import tables
from asgd_lab.record.run import read_summary
from asgd_lab.tasks.quadratic import QuadraticTask

from .chaos import members
from .scenarios import DIGITS, TIMING, run, scenario

ENDLESS = {"seconds": 600.0}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = set(os.listdir("/dev/shm"))
    descriptors = len(os.listdir("/proc/self/fd"))
    yield
    assert not [p for kind in ("server", "worker-0", "worker-1", "worker-2") for p in members(kind)]
    assert set(os.listdir("/dev/shm")) == before
    # The first run of a process starts the fork server and the resource tracker, which stay.
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 4


def once_running(act: Callable[[], None]) -> Callable[[Progress], None]:
    """A watch that acts once, when the first versions have been made."""
    done = threading.Event()

    def watch(progress: Progress) -> None:
        if progress.version >= 3 and not done.is_set():
            done.set()
            act()

    return watch


def kill(kind: str) -> None:
    (victim,) = members(kind)
    victim.kill()


@pytest.mark.parametrize("victim", ["worker-1", "server"])
@pytest.mark.parametrize(
    "algorithm", [{"name": "asgd", "n_sync": 2}, {"name": "sync_sgd", "n_sync": 2}], ids=["asgd", "sync_sgd"]
)
def test_a_killed_process_fails_the_run_and_what_was_recorded_is_kept(
    tmp_path: Path, victim: str, algorithm: dict[str, object]
) -> None:
    endless = scenario(backend="process", workers=3, budget=ENDLESS, algorithm=algorithm)
    with pytest.raises(
        RunFailed, match=rf"{victim.replace('-', ' ')} was killed by SIGKILL.* its log is .*{victim}\.log"
    ):
        execute(endless, tmp_path / "run", once_running(lambda: kill(victim)))
    summary = read_summary(tmp_path / "run")
    assert summary["status"] == "failed"
    assert "SIGKILL" in summary["failure"]
    effects = tables.read(tmp_path / "run", "effects")
    assert (effects["kind"] == "apply").sum() >= 3
    assert not (tmp_path / "run" / "parts").exists()


def test_a_worker_that_raises_fails_the_run_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fragile.py").write_text(
        "import torch\n"
        "class Fragile(torch.nn.Linear):\n"
        "    calls = 0\n"
        "    def forward(self, x):\n"
        "        Fragile.calls += 1\n"
        "        if Fragile.calls > 20: raise ValueError('worn out')\n"
        "        return super().forward(x.flatten(1))\n"
        "def make(num_classes):\n"
        "    return Fragile(64, num_classes)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    task = {**DIGITS, "model": "fragile:make"}
    reason = r"worker \d failed: ValueError: worn out \(fragile\.py:6\) after \d+ minibatches"
    with pytest.raises(RunFailed, match=reason):
        run(tmp_path / "run", task=task, backend="process", workers=2, budget=ENDLESS)


def test_an_interrupted_run_keeps_its_tables(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    endless = scenario(backend="process", workers=2, budget=ENDLESS)
    summary = execute(endless, tmp_path / "run", once_running(interrupt))
    assert summary["status"] == "interrupted"
    assert summary["minibatches"] > 0
    assert summary["final"]["test_loss"] < 1.0
    effects = tables.read(tmp_path / "run", "effects")
    assert effects.query("kind == 'apply' and version >= 0")["steps"].sum() == summary["minibatches"]


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from asgd_lab.backends.run import execute\n"
        "from tests.backends.scenarios import scenario\n"
        "from tests.backends.test_process import ENDLESS, members\n"
        "def watch(progress):\n"
        "    if progress.version > 2:\n"
        "        print(*[p.pid for k in ('server', 'worker-0', 'worker-1') for p in members(k)], flush=True)\n"
        "        sys.stdin.read()\n"
        f"execute(scenario(backend='process', workers=2, budget=ENDLESS), Path({str(tmp_path / 'run')!r}), watch)\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(children) == 3
        parent.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def test_a_mapping_of_what_is_not_ones_own_cannot_be_written(tmp_path: Path) -> None:
    code = (
        "from asgd_lab.backends.real.transports.memory import Stack\n"
        "stack = Stack('versions', 2, 100)\n"
        "stack.vector(1, writable=True).fill_(2.0)\n"
        "assert stack.vector(1).sum().item() == 200.0\n"
        "print('written by the owner', flush=True)\n"
        "stack.vector(1).fill_(3.0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "written by the owner\n"
    assert done.returncode == -signal.SIGSEGV


def test_vectors_of_a_stack_do_not_overlap_and_start_at_a_cache_line() -> None:
    stack = Stack("test", 3, 1025)
    vectors = [stack.vector(index, writable=True) for index in range(3)]
    for index, vector in enumerate(vectors):
        vector.fill_(float(index))
    assert [stack.vector(index).unique().tolist() for index in range(3)] == [[0.0], [1.0], [2.0]]
    assert all(vector.data_ptr() % 64 == 0 for vector in vectors)
    stack.close()


def test_shared_tensors_come_back_as_they_went_in() -> None:
    tensors = {"images": torch.rand(7, 1, 3, 3), "labels": torch.arange(7), "none": torch.empty(0, 4)}
    shared = SharedTensors(tensors)
    for name, value in shared.tensors().items():
        assert torch.equal(value, tensors[name])
    shared.close()


def test_an_emulated_device_takes_the_stated_time_and_its_overruns_are_counted(tmp_path: Path) -> None:
    emulated = {"name": "process", "device": "emulated"}
    summary = run(
        tmp_path / "slow",
        task=TIMING,
        backend=emulated,
        workers=4,
        algorithm={"name": "asgd", "n_sync": 5},
        budget={"minibatches": 100},
        hardware={"compute": {"step_s": 0.001}, "server": {"push_s": 0.003}},
    )
    effects = tables.read(tmp_path / "slow", "effects")
    trains = effects.query("kind == 'train'")
    assert (trains["end_s"] - trains["start_s"] >= 0.005).all()
    applies = effects.query("kind == 'apply'").sort_values("start_s")
    assert (applies["end_s"] - applies["start_s"] >= 0.003).all()
    assert (applies["start_s"].to_numpy()[1:] >= applies["end_s"].to_numpy()[:-1]).all(), "one request at a time"
    assert summary["emulated"] is True
    late = summary["lateness"]
    assert late["ways"] is None, "no way was stated"
    assert late["minibatches"] >= 0
    took_s = (applies["end_s"] - applies["start_s"]).sum()
    assert 0 <= late["services"] <= took_s / (len(applies) * 0.003) - 1 + 1e-3, "waited out within what was recorded"
    hasty = run(
        tmp_path / "hasty",
        backend=emulated,
        hardware={"compute": {"step_s": 1e-7}},
        budget={"minibatches": 50},
    )
    assert hasty["overruns"] == {"minibatches": 50, "share": 1.0}
    assert hasty["lateness"]["judged"] > 1, "a hundred times as long as stated"


def test_a_fetch_under_fire_is_always_one_version(tmp_path: Path) -> None:
    """The model's many parameters are alike in every version, and it refuses a vector in which they are not.

    With a million of them a fetch takes a while, during which the other workers' pushes are applied.
    """
    task = {**DIGITS, "model": "tests.backends.uniform:make", "model_options": {"size": 1_000_000}, "batch_size": 2}
    summary = run(
        tmp_path / "run",
        task={**task, "optimizer": {"name": "SGD", "lr": 0.5}},
        backend="process",
        workers=4,
        algorithm={"name": "asgd", "n_sync": 1},
        budget={"minibatches": 600},
    )
    assert summary["minibatches"] == 600
    assert summary["staleness"]["mean"] > 0.5, "nobody was fetching while others pushed"
    with np.load(tmp_path / "run" / "checkpoints" / "final.npz") as stored:
        levels = np.unique(stored["params"][:1_000_000])  # the layout has a module's own parameters first
    assert levels.size == 1
    assert levels[0] != 0, "every version moved them"


@pytest.mark.parametrize("algorithm", [{"name": "asgd"}, {"name": "ssp", "bound": 4}], ids=["asgd", "ssp"])
def test_no_other_push_comes_between_a_push_and_the_fetch_that_was_sent_with_it(
    tmp_path: Path, algorithm: dict[str, Any]
) -> None:
    """Though the worker loses its core to the server as soon as it has sent, and others push meanwhile."""
    run(
        tmp_path / "run",
        backend="process",
        workers=4,
        algorithm={**algorithm, "n_sync": 1},
        budget={"minibatches": 600},
    )
    log = event_log.read(tmp_path / "run" / event_log.FILE)
    requests = [row for row in log if row.kind in (Kind.PUSH, Kind.FETCH)]
    followed = [
        (before.kind, before.worker) == (Kind.PUSH, row.worker)
        for before, row in itertools.pairwise(requests)
        if row.kind == Kind.FETCH and row.number > 1
    ]
    assert len(followed) > 500
    assert all(followed)


def test_nothing_after_the_end_of_a_saturated_run_counts(tmp_path: Path) -> None:
    summary = run(
        tmp_path / "run",
        task=TIMING,
        backend={"name": "process", "device": "emulated"},
        workers=6,
        algorithm={"name": "asgd", "n_sync": 1},
        budget={"seconds": 0.5},
        hardware={"server": {"push_s": 0.05}},
    )
    assert summary["makespan_s"] == 0.5
    assert summary["dropped"] > 0, "pushes were waiting when the time was over"
    assert summary["minibatches"] <= 9
    assert summary["utilisation"]["server"] <= 1


def test_an_interruption_of_the_evaluation_keeps_counts_and_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> list[tuple[str, str, float]]:
        raise KeyboardInterrupt

    monkeypatch.setattr(QuadraticTask, "evaluate", interrupted)
    summary = run(tmp_path / "run", backend="process", budget={"minibatches": 30})
    assert summary["status"] == "interrupted"
    assert summary["minibatches"] == 30
    assert (tmp_path / "run" / "checkpoints" / "final.npz").exists()
    assert not (tmp_path / "run" / "parts").exists()


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        ({"workers": 241}, "workers"),
        ({"backend": {"name": "process", "device": "cuda"}}, "backend.device"),
    ],
)
def test_what_this_node_cannot_do_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: dict[str, object], key: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ScenarioError) as caught:
        run(tmp_path / "run", **{"backend": "process", **parts})
    assert caught.value.key == key
