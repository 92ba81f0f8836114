"""Classes and functions of a notebook's cell in the place of package.module:Name: on every backend, in every process.

The same cell, written to a module, is the reference: a run with live objects has the bits of the run with names.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from torch import nn
from traitlets.config import Config

from asgd_lab import live_objects
from asgd_lab.backends.real.pool import Job, Pool
from asgd_lab.backends.real.preload import preload
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record.run import read_manifest, read_summary
from asgd_lab.scenario import Document, Scenario

from ..cli.harness import asgd_lab
from ..whole import WHOLE, sample
from .cells import CELL, executed

BASE = {
    "name": "live", "seed": 3, "workers": 2, "algorithm": {"name": "asgd", "n_sync": 2}, "budget": {"minibatches": 24},
    "backend": "inline", "hardware": {"compute": {"step_s": 0.001}},
}  # fmt: skip
IMAGES = {"name": "classification", "dataset": "digits", "train_samples": 64, "batch_size": 8}
OPTIMIZER = {"name": "SGD", "lr": 0.05}


@pytest.fixture(scope="module")
def cell() -> dict[str, Any]:
    return executed()


@pytest.fixture(scope="module", autouse=True)
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a module with the cell's source."""
    folder = tmp_path_factory.mktemp("written")
    (folder / "written_cell.py").write_text(CELL)
    sys.path.insert(0, str(folder))
    yield "written_cell"
    sys.path.remove(str(folder))
    sys.modules.pop("written_cell", None)


def stated(value: Any, key: str = "") -> Any:
    """The plain data of a scenario's dict."""
    if isinstance(value, Mapping):
        return {name: stated(each, f"{key}.{name}" if key else name) for name, each in value.items()}
    if isinstance(value, list):
        return [stated(each, f"{key}.{index}") for index, each in enumerate(value)]
    return value if value is None or isinstance(value, str | int | float) else live_objects.stand_in(value, key)


def scenario(**parts: Any) -> Scenario:
    return Scenario.model_validate(stated({**BASE, **parts}))


def kinds(of: Any) -> dict[str, dict[str, Any]]:
    """A scenario's parts for each kind of object; `of` maps a name of the cell to what stands there."""
    own = {"name": "own", "task": of("Task"), "optimizer": OPTIMIZER}
    return {
        "model factory": {"task": {**IMAGES, "model": of("make")}},
        "module class": {"task": {**IMAGES, "model": of("Net"), "model_options": {"hidden": 5}}},
        "loss": {"task": {**IMAGES, "loss": of("loss")}},
        "data": {"task": {**IMAGES, "dataset": of("images"), "dataset_options": {"samples": 48}, "train_samples": 32}},
        "optimizer": {"task": {**IMAGES, "optimizer": {"name": of("Slower"), "lr": 0.1}}},
        "schedule": {"task": {**IMAGES, "schedule": {"name": of("falling"), "warmup": 2}}},
        "own task": {"task": {**own, "options": {"hidden": 5}}},
        "algorithm with a gate": {"task": own, "algorithm": {"name": of("Growing"), "n_sync": 4, "first": 2}},
        "rule": {"task": own, "algorithm": {"name": "asgd", "n_sync": 2, "rule": [{"name": of("Sign"), "lr": 0.01}]}},
        "codec": {"task": own, "algorithm": {"name": "asgd", "n_sync": 2, "codec": of("Rounded")}},
        "task of the registry": {"task": {"name": of("Slope"), "slope": 0.5}},
        "backend": {"task": own, "backend": {"name": of("Aside")}},
        "all at once": {
            "task": {**IMAGES, "model": of("make"), "dataset": of("images"), "loss": of("loss"),
                     "optimizer": {"name": of("Slower"), "lr": 0.1}, "schedule": {"name": of("falling")}},
            "algorithm": {"name": of("Growing"), "n_sync": 3, "codec": of("Rounded"),
                          "rule": [{"name": "scale"}, {"name": of("Sign"), "lr": 0.01}]},
        },
    }  # fmt: skip


KINDS = list(kinds(str))
BACKENDS: dict[str, Any] = {
    "inline": "inline", "sim": "sim", "batched": {"name": "sim", "numerics": "batched"}, "process": "process",
}  # fmt: skip


def in_a_pool(jobs: list[Job]) -> dict[int, Any]:
    """The last word of each job."""
    with Pool(2) as pool:
        return dict(pool.run(jobs))


def refused(*arguments: str | Path) -> str:
    said = asgd_lab(*arguments)
    assert (said.status, said.err.count("\n")) == (2, 1), said
    return said.err


CASES = [
    *(("inline", kind) for kind in KINDS),
    *sample([("sim", kind) for kind in KINDS if kind != "backend"], 3),
    ("batched", "data"),
    ("process", "all at once"),
]  # of the own task there is another test


@pytest.mark.parametrize(("backend", "kind"), CASES)
def test_every_kind_of_live_object_trains_as_the_module_that_has_its_source(
    tmp_path: Path, cell: dict[str, Any], module: str, backend: str, kind: str
) -> None:
    live = scenario(**{"backend": BACKENDS[backend], **kinds(cell.__getitem__)[kind]})
    named = scenario(**{"backend": BACKENDS[backend], **kinds(lambda name: f"{module}:{name}")[kind]})
    assert live_objects.travelling(live)
    assert not live_objects.travelling(named)
    summary = execute(live, tmp_path / "live")
    assert summary["minibatches"] == 24
    assert live_objects.changed(read_manifest(tmp_path / "live")["inputs"]["code"]) == [], "the run changed nothing"
    if backend == "process":
        said = asgd_lab("replay", tmp_path / "live")
        assert said.status == 0, said
        assert "same bits" in said.out
    else:
        assert summary["params_sha256"] == execute(named, tmp_path / "named")["params_sha256"]


def test_a_task_that_is_made_already_is_copied_for_each_run(tmp_path: Path, cell: dict[str, Any]) -> None:
    class Counting(cell["Task"]):  # type: ignore[misc]
        minibatches = 0

        def batch(self, *whose: int) -> Any:
            self.minibatches += 1
            return super().batch(*whose)

    made = Counting(hidden=5)
    of_instance = scenario(task={"name": "own", "task": made})
    of_class = scenario(task={"name": "own", "task": cell["Task"], "options": {"hidden": 5}})
    hashes = [execute(each, tmp_path / str(n))["params_sha256"] for n, each in enumerate((of_instance, of_class))]
    assert hashes[0] == hashes[1]
    assert made.minibatches == 0
    assert asgd_lab("replay", tmp_path / "0").status == 0
    with pytest.raises(ScenarioError, match="which is made already; remove them"):
        execute(scenario(task={"name": "own", "task": made, "options": {"hidden": 5}}), tmp_path / "3")


def test_lambdas_partials_and_functions_of_functions_have_names_of_their_own(
    tmp_path: Path, cell: dict[str, Any]
) -> None:
    def of_width(hidden: int) -> Any:
        def make(num_classes: int) -> nn.Module:
            net: nn.Module = cell["Net"](num_classes, hidden)
            return net

        return make

    ways = [
        lambda num_classes: cell["Net"](num_classes, hidden=7),
        functools.partial(cell["Net"], hidden=7),
        of_width(7),
    ]
    names = [live_objects.named(way) for way in [*ways, of_width(8)]]
    assert [name.rpartition("-")[0] for name in names] == ["live:lambda", "live:Net", "live:make", "live:make"]
    assert len(set(names)) == 4
    hashes = {
        execute(scenario(task={**IMAGES, "model": way}), tmp_path / str(number))["params_sha256"]
        for number, way in enumerate(ways)
    }
    assert len(hashes) == 1


def test_an_object_that_any_process_can_import_has_its_own_name(module: str) -> None:
    written = __import__(module)
    assert live_objects.named(written.make) == f"{module}:make"
    assert live_objects.named(written.Task) == f"{module}:Task"
    assert live_objects.named(torch.nn.functional.cross_entropy) == "torch.nn.functional:cross_entropy"
    assert live_objects.named(torch.optim.AdamW) == "AdamW"
    assert not live_objects.is_live("live:make"), "a module may be called live"


def test_a_class_defined_again_has_another_name_and_the_earlier_run_still_its_own(tmp_path: Path) -> None:
    first, second = (executed(number=number)["Task"] for number in (2, 3))
    earlier = scenario(task={"name": "own", "task": first})
    execute(earlier, tmp_path / "run")
    assert live_objects.named(first) == earlier.task.task, "its use does not change it"  # type: ignore[attr-defined]
    assert live_objects.named(second) != live_objects.named(first)
    assert asgd_lab("replay", tmp_path / "run").status == 0


def test_a_change_of_a_value_that_a_live_object_uses_is_said(tmp_path: Path) -> None:
    names = executed(number=4)
    execute(scenario(task={**IMAGES, "model": names["make"]}), tmp_path / "run")
    before = live_objects.named(names["make"])
    names["HIDDEN"] = 13
    assert live_objects.named(names["make"]) != before
    said = asgd_lab("replay", tmp_path / "run")
    assert said.status != 0
    assert f"{before}, or a value that it uses, has changed since" in said.out + said.err


def test_the_record_has_the_name_the_source_and_the_digest(tmp_path: Path, cell: dict[str, Any]) -> None:
    execute(scenario(task={"name": "own", "task": cell["Task"]}), tmp_path / "run")
    (name,) = read_manifest(tmp_path / "run")["inputs"]["code"]
    recorded = read_manifest(tmp_path / "run")["inputs"]["code"][name]
    assert f"task: {name}\n" in (tmp_path / "run" / "scenario.yaml").read_text()
    assert recorded["object"] == "__main__.Task"
    assert recorded["source"].startswith('class Task:\n    """A task of one\'s own."""')
    assert recorded["source"].endswith("for step in range(2)]\n")
    assert recorded["sha256"].startswith(name.rpartition("-")[2])


def test_a_sweep_over_live_objects_runs_in_processes_of_a_pool(tmp_path: Path, cell: dict[str, Any]) -> None:
    swept = [
        scenario(task={**IMAGES, "model": model, "dataset": cell["images"]}, backend="sim")
        for model in (cell["make"], cell["Net"], lambda num_classes: cell["Net"](num_classes, 4))
    ]
    jobs = [Job(each, tmp_path / f"apart-{number}", trusted=False) for number, each in enumerate(swept)]
    words = in_a_pool(jobs)
    for number, each in enumerate(swept):
        word: Any = words[number]
        assert word["status"] == "done", word
        assert word["params_sha256"] == execute(each, tmp_path / f"here-{number}")["params_sha256"]
        of_pool, here = (read_manifest(tmp_path / f"{where}-{number}")["inputs"]["code"] for where in ("apart", "here"))
        assert of_pool == here
        assert asgd_lab("replay", tmp_path / f"apart-{number}").status == 0


def test_a_killed_worker_comes_back_with_its_live_objects_and_no_file_is_made(
    tmp_path: Path, cell: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = tmp_path / "temporary"
    aside.mkdir()
    preload()
    monkeypatch.setattr(tempfile, "tempdir", str(aside))
    kill = {"schedule": [{"name": "kill", "worker": 1, "at_s": 0.05}]}
    parts = kinds(cell.__getitem__)["own task"]
    summary = execute(scenario(**parts, budget={"seconds": 1.0}, backend="process", faults=kill), tmp_path / "run")
    assert (summary["faults"]["workers"], summary["faults"]["restarts"]) == (1, 1)
    files = [each for folder in (tmp_path, Path("/dev/shm")) for each in folder.rglob("*") if each.is_file()]
    assert [each.name for each in files if b"A task of one's own" in read_bytes(each)] == ["manifest.json"]
    assert asgd_lab("replay", tmp_path / "run").status == 0


def read_bytes(path: Path) -> bytes:
    """Its content; nothing of a file that somebody else has removed meanwhile."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


class _Torn:
    """It is pickled, and cannot be read again."""

    def __call__(self, num_classes: int) -> nn.Module:
        return nn.Linear(64, num_classes)

    def __reduce__(self) -> Any:
        return _tear, ()


def _tear() -> Any:
    raise ValueError("torn")


def _closing_over(value: object) -> Any:
    def make(num_classes: int) -> nn.Module:
        assert value is not None
        return nn.Linear(64, num_classes)

    return make


REFUSED: dict[str, tuple[Any, str]] = {
    "compiled": (
        lambda: torch.compile(_closing_over(1), backend="eager"),
        "make is compiled by torch.compile, and cannot travel",
    ),
    "around compiled": (
        lambda: _closing_over(torch.compile(nn.Linear(2, 2), backend="eager")),
        "make uses value, which is compiled by torch.compile, and cannot travel",
    ),
    "a lock": (lambda: _closing_over(threading.Lock()), "make cannot travel to processes, because of value: TypeError"),
    "large": (lambda: _closing_over(torch.zeros(2**24 + 1)), "make has .* bytes .*, most of it value; at most"),
    "a module": (lambda: json, "must be plain data, a class or a function; got the module json"),
    "a tensor": (lambda: torch.zeros(3), "must be plain data, a class or a function; got a Tensor"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_travel_is_refused_in_one_line(case: str) -> None:
    made, message = REFUSED[case]
    with pytest.raises(ScenarioError, match=message) as refusal:
        live_objects.stand_in(made(), "task.model")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("key", ["task.model_options.activation", "task.options.net", "task.optimizer.lr"])
def test_an_object_among_options_is_refused(key: str) -> None:
    with pytest.raises(ScenarioError, match="must be plain data; an object can stand where a file has"):
        live_objects.stand_in(nn.GELU, key)


def test_an_object_that_stands_for_a_mapping_becomes_its_name(cell: dict[str, Any]) -> None:
    name = live_objects.named(cell["Task"])
    assert live_objects.stand_in(cell["Task"], "task") == {"name": "own", "task": name}
    assert live_objects.stand_in(cell["Task"], "sweep.task.0") == {"name": "own", "task": name}
    assert live_objects.stand_in(cell["Slope"], "task") == {"name": live_objects.named(cell["Slope"])}
    assert live_objects.stand_in(torch.optim.Adam, "task.optimizer") == {"name": "Adam"}
    assert live_objects.stand_in(cell["falling"], "task.schedule.name") == live_objects.named(cell["falling"])


def test_a_module_itself_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="is a module itself; give its class, or a function") as refusal:
        execute(scenario(task={**IMAGES, "model": nn.Linear(64, 10)}), tmp_path / "run")
    assert refusal.value.key == "task.model"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("backend", ["process", "sim"])
def test_an_object_that_no_process_can_read_is_refused_before_anything_is_begun(tmp_path: Path, backend: str) -> None:
    torn = scenario(task={**IMAGES, "model": _Torn()}, backend=backend)
    with pytest.raises(ScenarioError, match="cannot be read by the processes of a run: ValueError: torn") as refusal:
        execute(torn, tmp_path / "run") if backend == "process" else in_a_pool([Job(torn, tmp_path / "run", True)])
    assert refusal.value.key == "task.model"
    assert not (tmp_path / "run").exists()


LIVE = "live:MyTask-1a2b"
IN_A_FILE = {
    "task.model": "task: {name: classification, dataset: digits, model: 'LIVE'}",
    "task.dataset": "task: {name: classification, dataset: 'LIVE'}",
    "task.loss": "task: {name: classification, dataset: digits, loss: 'LIVE'}",
    "task.optimizer.name": "task: {name: classification, dataset: digits, optimizer: {name: 'LIVE'}}",
    "task.schedule.name": "task: {name: classification, dataset: digits, schedule: {name: 'LIVE'}}",
    "task.task": "task: {name: own, task: 'LIVE'}",
    "task.name": "task: {name: 'LIVE'}",
    "algorithm.name": "algorithm: {name: 'LIVE', n_sync: 2}",
    "algorithm.rule.0.name": "algorithm: {name: asgd, n_sync: 2, rule: [{name: 'LIVE'}]}",
    "algorithm.codec.name": "algorithm: {name: asgd, n_sync: 2, codec: {name: 'LIVE'}}",
    "backend": "backend: 'LIVE'",
    "sweep": "sweep: {task.start: [1.0], algorithm.name: [asgd, 'LIVE']}",
}


@pytest.mark.parametrize("trust", [(), ("--trust",)], ids=["untrusted", "trusted"])
@pytest.mark.parametrize("key", IN_A_FILE)
def test_a_file_that_names_what_lived_elsewhere_is_refused_in_one_line(
    tmp_path: Path, key: str, trust: tuple[str, ...]
) -> None:
    written = Document.dump(Scenario.model_validate({**BASE, "task": {"name": "quadratic", "curvature": [1.0]}}))
    kept = [line for line in written.splitlines() if not line.startswith(IN_A_FILE[key].partition(":")[0])]
    lines, inside = [], False
    for line in written.splitlines():  # leave the whole mapping of that key out
        if not line.startswith(" ") and not line.startswith("-"):
            inside = line not in kept
        if not inside:
            lines.append(line)
    (tmp_path / "a.yaml").write_text("\n".join([*lines, IN_A_FILE[key].replace("LIVE", LIVE), ""]))
    for command in ("validate", "run", "compare"):
        more = ["--out", str(tmp_path / "out")] if command != "validate" else []
        said = refused(command, tmp_path / "a.yaml", *more, *trust)
        assert f"{LIVE} was defined in a notebook or a script, not in this process" in said
        assert said.startswith(f"{tmp_path / 'a.yaml'}:{len(lines) + 1}: {key}"), said
        assert not (tmp_path / "out").exists()


def test_elsewhere_a_live_run_is_read_and_neither_replayed_nor_exported_nor_resumed(
    tmp_path: Path, cell: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    execute(scenario(task={**IMAGES, "model": cell["make"]}), run)
    assert asgd_lab("export", run, tmp_path / "model.pt").status == 0
    monkeypatch.setattr(live_objects, "_kept", {})
    for command in (("replay", run), ("export", run, tmp_path / "other.pt"), ("replay", run, "--trust")):
        said = refused(*command)
        assert "task.model: live:make-" in said
        assert "it runs and replays only where it is defined: asgd_lab.replay(run)" in said
    scenario_yaml = str(run / "scenario.yaml")
    assert "task.model: live:make-" in refused("run", scenario_yaml, "--resume", "--out", run)
    assert read_summary(run)["minibatches"] == 24


OWN = """
class Task:
    def model(self, seed):
        import torch

        return torch.nn.Linear(4, 3)

    def batch(self, worker, workers, seed, step):
        import torch

        return torch.randn(8, 4, generator=torch.Generator().manual_seed(97 * worker + step))

    def loss(self, model, batch):
        return model(batch).square().mean()
"""


def trained(task: Any, folder: Path) -> None:
    """Train it in processes, and repeat the run."""
    of_task = scenario(task=task, backend="process")
    execute(of_task, folder)
    assert repeat(of_task, folder).difference is None


def test_classes_of_cells_of_ipython_train_in_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    shell.push({"trained": trained, "folder": tmp_path})
    for number in (1, 2):
        shell.run_cell(OWN).raise_error()
        shell.run_cell(f"trained(Task, folder / 'cell-{number}')").raise_error()
    recorded = [read_manifest(tmp_path / f"cell-{number}")["inputs"]["code"] for number in (1, 2)]
    assert {facts["source"] for code in recorded for facts in code.values()} == {OWN.lstrip()}
    assert len({name for code in recorded for name in code}) == 2


@pytest.mark.skipif(not WHOLE, reason="the cells of IPython stand for it")
def test_a_class_of_a_script_on_standard_input_trains_in_processes(tmp_path: Path) -> None:
    """Its `__main__` has no file, and its run can be read elsewhere but not repeated."""
    script = f"from pathlib import Path\nfrom tests.api.test_live_objects import trained\n{OWN}\n"
    script += f"trained(Task, Path({str(tmp_path / 'run')!r}))\n"
    done = subprocess.run(
        [sys.executable, "-"], input=script, text=True, capture_output=True, timeout=240,
        cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ((name, facts),) = read_manifest(tmp_path / "run")["inputs"]["code"].items()
    assert "source" not in facts
    assert f"task.task: {name} was defined in a notebook" in refused("replay", tmp_path / "run")
