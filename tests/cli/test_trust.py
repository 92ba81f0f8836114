"""Whose code runs: none of a scenario's author unless --trust says so, by whatever name and command it is reached."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import asgd_lab as package
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.scenario import Document
from asgd_lab.trust import trusting

from .harness import PATIENCE_S, QUADRATIC, Said, asgd_lab, finish, start

TRAP = """\
import pathlib, torch
pathlib.Path({mark!r}).write_text("it ran")
def data(**options):
    x = torch.zeros(8, 1, 8, 8)
    y = torch.arange(8) % 2
    return dict(train_images=x, train_labels=y, test_images=x, test_labels=y)
def model(num_classes, **options):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, num_classes))
def loss(outputs, labels):
    return torch.nn.functional.cross_entropy(outputs, labels)
class Plain(torch.optim.SGD): pass
"""
SCENARIO = """\
name: strange
task: {{name: classification, dataset: digits, model: mlp, batch_size: 4, {own}}}
algorithm: {{name: asgd, n_sync: 2}}
budget: {{minibatches: 8}}
workers: 1
backend: {backend}
"""
KEYS = {
    "dataset": "dataset: 'trap:data'",
    "model": "model: 'trap:model'",
    "loss": "loss: 'trap:loss'",
    "optimizer": "optimizer: {name: 'trap:Plain', lr: 0.1}",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a module in it that leaves a mark when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "trap", raising=False)
    (tmp_path / "trap.py").write_text(TRAP.format(mark=str(tmp_path / "mark")))
    return tmp_path


def written(own: str, backend: str = "inline") -> Path:
    text = SCENARIO.format(own=own, backend=backend)
    if backend == "sim":
        text += "hardware: {compute: {step_s: 0.001}}\n"
    for key in ("dataset", "model"):  # the later one of a key that is given twice
        if text.count(f" {key}: ") == 2:
            text = text.replace({"dataset": " dataset: digits,", "model": " model: mlp,"}[key], "", 1)
    path = Path("strange.yaml")
    path.write_text(text)
    return path


def ran() -> bool:
    return Path("mark").exists()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("command", ["run", "compare", "validate"])
def test_no_command_imports_a_strangers_code_unless_it_is_trusted(folder: Path, key: str, command: str) -> None:
    path = written(KEYS[key], backend="process" if command == "compare" else "inline")
    said = asgd_lab(command, path)
    full = "task.optimizer.name" if key == "optimizer" else f"task.{key}"
    assert not ran(), f"{folder} holds a mark of what was imported"
    assert (said.out + said.err).count("--trust") == 1
    if command == "validate":
        assert (said.status, said.err) == (0, "")
        first, second = said.out.splitlines()
        assert first == "strange.yaml: valid as far as it was checked; 1 run"
        assert second.startswith(f"strange.yaml: {full}: trap:")
    else:
        assert said.status == 2
        assert said.err.startswith(f"strange.yaml:2: {full}: trap:")
    if command != "compare":
        assert asgd_lab(command, path, "--trust").status == 0
        assert ran()


def test_validate_without_trust_still_checks_the_rest(folder: Path) -> None:
    for own, message in (
        ("loss: 'trap:loss', batch_size: 4000", "4000 is more than"),
        ("dataset: 'trap:data', optimizer: {name: Sgd}", "torch.optim has no 'Sgd'"),
        ("model: 'trap:model', data_folder: nowhere, dataset: fashion-mnist", "nowhere is not a folder"),
    ):
        path = written(own)
        if own.startswith("loss"):
            path.write_text(path.read_text().replace("batch_size: 4, ", ""))
        said = asgd_lab("validate", path)
        assert said.status == 2
        assert message in said.err
    assert not ran(), f"{folder} holds a mark"


def test_replay_and_resume_of_a_strangers_record_import_its_code_only_if_it_is_trusted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(KEYS["model"], backend="sim")
    with trusting(True):
        execute(Document.read(path).points()[0].scenario, folder / "record")
    Path("mark").unlink()
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "another user's"))  # whose key did not sign the record
    del sys.modules["trap"]
    sys.path.remove(str(folder))
    for command, named in (
        (["replay", "record"], "trap:model (task.model)"),
        (["run", path, "--resume", "--out", "record"], "task.model: trap:model"),
    ):
        said = asgd_lab(*command)
        assert said.status == 2
        assert f"{named} would be imported and run" in said.err
        assert not ran()
    assert asgd_lab("replay", "record", "--trust").status == 0
    assert ran()


def test_nothing_of_the_current_directory_shadows_the_standard_library_or_torch(folder: Path) -> None:
    """Neither here nor in the servers that multiprocessing starts for workers and for the points of a sweep."""
    traps = folder / "traps"
    traps.mkdir()
    for name in {*sys.stdlib_module_names, "torch", "numpy", "pyarrow", "usercustomize", "asgd_lab"}:
        (traps / f"{name}.py").write_text(f"print(__name__, file=open({str(folder / 'mark')!r}, 'a'))")
    program = folder / "asgd-lab"  # as pip installs it
    program.write_text("from asgd_lab.__main__ import main\nmain()\n")
    (traps / "strange.yaml").write_text(QUADRATIC + "sweep: {backend.name: [inline, sim, process]}\n")
    command = [sys.executable, program, "run", "strange.yaml", "--jobs", "2", "--out", "out"]
    said = subprocess.run(command, cwd=traps, capture_output=True, text=True, timeout=3 * PATIENCE_S)
    assert said.returncode == 0, said
    assert not ran(), (folder / "mark").read_text()


# Callables that lie in trusted libraries, and do more than compute.
IN_LIBRARIES = [
    ("model", "torch:load"),
    ("model", "torch.hub:load"),
    ("model", "torch.utils.cpp_extension:load"),
    ("model", "torch.ops:load_library"),
    ("model", "torch:ops.load_library"),
    ("model", "torch:os.system"),
    ("model", "torch:serialization.pickle.loads"),
    ("model", "torch.jit:load"),
    ("model", "torch.nn:Module.__init__"),
    ("model", "torch.nn.modules.module:torch"),
    ("model", "torch.nn.modules.module:warnings.warn"),
    ("model", "torchvision.datasets:FashionMNIST"),
    ("model", "torchvision.models:get_weight"),
    ("model", "asgd_lab.tasks.code_imports:imported"),
    ("model", "asgd_lab.app.cli:main"),
    ("model", "asgd_lab.__main__:main"),
    ("dataset", "subprocess:check_output"),
    ("dataset", "os:system"),
    ("dataset", "torchvision.datasets:FashionMNIST"),
    ("dataset", "torch.nn:Linear"),
    ("loss", "torch.nn:Linear"),
    ("loss", "torch.nn.functional:warnings.warn"),
    ("loss", "torch.nn.functional:importlib.import_module"),
    ("loss", "builtins:eval"),
    ("optimizer", "torch.nn:Linear"),
    ("optimizer", "torch.optim.swa_utils:deepcopy"),
]


@pytest.mark.parametrize(("key", "name"), IN_LIBRARIES)
def test_what_lies_in_a_trusted_library_is_not_trusted_for_that(folder: Path, key: str, name: str) -> None:
    own = f"optimizer: {{name: '{name}', lr: 0.1}}" if key == "optimizer" else f"{key}: '{name}'"
    said = asgd_lab("run", written(own))
    assert said.status == 2, f"in {folder}: {said}"
    assert "would be imported and run" in said.err
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    "own",
    [
        "optimizer: {name: 'torch.optim:Adam', lr: 0.1}",
        "loss: 'torch.nn.functional:cross_entropy'",
    ],
)
def test_networks_losses_and_optimizers_of_the_libraries_need_no_trust(folder: Path, own: str) -> None:
    said = asgd_lab("run", written(own))
    assert said.status == 0, f"in {folder}: {said.err}"


@pytest.mark.parametrize(("key", "value"), [("weights", "DEFAULT"), ("pretrained", "true")])
def test_weights_are_not_downloaded_and_unpickled_unasked(folder: Path, key: str, value: str) -> None:
    said = asgd_lab("run", written(f"model: resnet18, model_options: {{{key}: {value}}}"))
    assert said.status == 2, f"in {folder}: {said}"
    assert said.err.startswith(f"strange.yaml:2: task.model_options.{key}: ")
    assert "(downloaded and unpickled)" in said.err


def test_a_plugin_is_trusted_because_it_is_installed_and_not_because_it_lies_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(KEYS["model"])

    def install(place: Path) -> None:
        info = place / "traps-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: traps\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[asgd_lab.models]\ntrap = trap:model\n")

    install(folder)
    monkeypatch.syspath_prepend("")
    assert asgd_lab("run", path).status == 2, "an entry point in the current directory"
    assert not ran()
    install(folder / "site")
    (folder / "trap.py").rename(folder / "site" / "trap.py")
    monkeypatch.syspath_prepend(str(folder / "site"))
    assert asgd_lab("run", path).status == 0
    assert ran()


@pytest.mark.parametrize("backend", ["process", "sim"])
def test_processes_inherit_the_decision(folder: Path, backend: str) -> None:
    path = written(KEYS["model"], backend)
    path.write_text(path.read_text() + "sweep: {seed: [0, 1]}\n")
    command = ("run", path, "--out", "out", "--jobs", "2")
    refused = asgd_lab(*command)  # before any process is started
    trusted = finish(start(*command, "--trust", folder=folder))
    assert (refused.status, trusted.status) == (2, 0), f"{refused}, {trusted}"


def test_a_module_in_the_current_directory_does_not_stand_for_a_library(folder: Path) -> None:
    for name in ("torch", "pandas", "typer"):
        (folder / f"{name}.py").write_text((folder / "trap.py").read_text())
    said: Said = finish(start("validate", written("loss: null"), folder=folder))
    assert (said.status, said.err) == (0, "")
    assert not ran()


def test_python_callers_may_refuse_too(folder: Path) -> None:
    scenario = Document.read(written(KEYS["model"])).points()[0].scenario
    with trusting(False), pytest.raises(ScenarioError, match="would be imported and run"):
        execute(scenario, folder / "out")
    assert not ran()


FILES = sorted(Path(package.__file__).parent.rglob("*.py"))
IMPORTERS = {"__import__", "eval", "exec", "import_module", "compile", "run_path", "run_module"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


# Objects of this process, from the pipe of its parent alone; arrays of CIFAR, by a reader that refuses all other names.
UNPICKLING = {"live_objects.py": {"pickle", "cloudpickle"}, "torchvision_sets.py": {"pickle"}}
# The second: homes of the package's own public names; the third: names that a class has, not a text.
IMPORTING = ("code_imports.py", "__init__.py", "trust.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FILES[0].parent)))
def test_no_file_loads_pickles_and_only_one_imports_what_a_text_names(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    imports = [
        name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
    ]
    assert {name.split(".")[0] for name in imports} & PICKLES == UNPICKLING.get(path.name, set())
    for call in calls:
        name = ast.unparse(call.func)
        keywords = {each.arg: ast.unparse(each.value) for each in call.keywords}
        assert name not in ("torch.load", "pd.read_pickle", "pandas.read_pickle", "yaml.load"), f"{name} unpickles"
        if name in ("np.load", "numpy.load", "np.fromfile"):
            assert keywords.get("allow_pickle", "False") == "False"
        if name in IMPORTERS or (name.startswith(("importlib.", "runpy.")) and name.split(".")[-1] in IMPORTERS):
            is_fixed = all(isinstance(each, ast.Constant) for each in call.args)  # a name that no text can change
            assert is_fixed or path.name in IMPORTING, f"{name} in {path}"
