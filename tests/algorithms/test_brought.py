"""A user brings an algorithm or a rule: run, repeated, trusted, recorded and blamed like everything else of theirs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from asgd_lab.algorithms import ALGORITHMS, RULES
from asgd_lab.algorithms.codecs import CODECS
from asgd_lab.scenario import json_schema
from asgd_lab.scenario.executions import BACKENDS
from asgd_lab.scenario.tasks import TASKS
from tests.cli.harness import asgd_lab, finish, start

SCENARIO = """\
name: mine
seed: 5
task: {{name: quadratic, curvature: [1.0, 4.0], noise: 0.1, optimizer: {{name: SGD, lr: 0.05}}}}
algorithm: {algorithm}
workers: {workers}
budget: {{minibatches: 60}}
backend: {backend}
"""
SIMULATED = "hardware: {compute: {step_s: 0.001, distribution: lognormal}}\n"
CHOSEN = {
    "around one of ours": "{name: 'brought:Patient', n_fetch: 4, n_push: 2}",
    "a program of its own": "{name: 'brought:Growing', n_sync: 4}",
    "a rule": "{name: asgd, n_sync: 3, rule: [scale, {name: 'brought:Sign', lr: 0.01}]}",
    "a codec": "{name: asgd, n_sync: 3, codec: {name: 'brought:Rounded', dtype: bfloat16}}",
    "both": "{name: 'brought:Growing', n_sync: 4, rule: [{name: 'brought:Sign', lr: 0.01}]}",
}
BROKEN = """\
import dataclasses
from asgd_lab.algorithms import Asgd, Configuration, Link, Together
from asgd_lab.algorithms.rules import Add
from asgd_lab.protocol import effects, gates, rules
from asgd_lab.protocol.algorithms import blocking
from asgd_lab.protocol.rules import Rule
from pydantic import field_validator

class Plain(Together):
    \"\"\"Whole deltas, nobody waits.\"\"\"
    push = property(lambda self: "delta")
    rule = property(lambda self: [Add(name="add")])
    def sentence(self, rule):
        return blocking(self, gates.asynchronous(), rule)
class Nothing(Plain):
    def sentence(self, rule):
        return None
class Raising(Plain):
    def sentence(self, rule):
        return 1 / 0
class Collecting(Plain):
    def sentence(self, rule):
        return blocking(self, gates.lock_step(), rule)
class Failing(Plain):
    after: int = 0
    def sentence(self, rule):
        plain = super().sentence(rule)
        def program(replica):
            for effect in plain.program(replica):
                if replica.minibatches >= self.after:
                    raise LookupError("no program")
                yield effect
        return dataclasses.replace(plain, program=program)
class Greedy(Plain):
    after: int = 0
    def sentence(self, rule):
        plain = super().sentence(rule)
        def program(replica):
            for effect in plain.program(replica):
                if replica.minibatches >= self.after and isinstance(effect, effects.Train):
                    replica.granted += 5
                    replica.steps += 5
                yield effect
        return dataclasses.replace(plain, program=program)
class Grumpy(gates.Gate):
    def on_push(self, push, server):
        if server.version >= 50:
            raise LookupError("no gate")
        return gates.APPLY
class Gated(Plain):
    def sentence(self, rule):
        return blocking(self, Grumpy(), rule)
class Holding(Plain):
    def sentence(self, rule):
        class Holds(gates.Gate):
            def on_push(self, push, server):
                return gates.HOLD
        return blocking(self, Holds(), rule)
class Deep(Plain):
    collects = True
    def sentence(self, rule):
        class Holds(gates.Gate):
            collects = True
        return dataclasses.replace(blocking(self, Holds(), rule), depth=2)
class Sleepy(gates.Gate):
    def wake_ns(self, server):
        return 10_000_000 if server.version < 3 else None
class Woken(Plain):
    def sentence(self, rule):
        return blocking(self, Sleepy(), rule)
class Strange(Plain):
    def sentence(self, rule):
        def program(replica):
            yield "fetch"
        return dataclasses.replace(super().sentence(rule), program=program)
class Hasty(Plain):
    def sentence(self, rule):
        def program(replica):
            yield effects.Fetch(replica)
            yield effects.Push(replica)
        return dataclasses.replace(super().sentence(rule), program=program)
class Endless(Plain):
    def sentence(self, rule):
        def program(replica):
            while True:
                yield effects.Fetch(replica)
        return dataclasses.replace(super().sentence(rule), program=program)
class Choosy(Plain):
    @field_validator("n_sync")
    @classmethod
    def _odd(cls, value):
        if value % 2 == 0:
            raise ValueError("must be odd")
        return value
class Unsaid(Configuration): pass
class Keyless(Configuration):
    def sentence(self, rule):
        return blocking(self, gates.asynchronous(), rule)
class Lying(Link):
    def build(self, workers):
        return rules.sgd(0.1)
class Stumbling(Link):
    after: int = 0
    def build(self, workers):
        def step(update, context, *rest):
            if context.version >= self.after:
                raise LookupError("no step")
            return update
        return Rule("stumbling", "any", "any", 0, step)
def function(): pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with the modules in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    shutil.copy(Path(__file__).with_name("mine.py"), tmp_path / "brought.py")
    (tmp_path / "broken.py").write_text(BROKEN)
    yield tmp_path
    for name in ("brought", "broken", "ringers"):
        sys.modules.pop(name, None)
    for registry in (ALGORITHMS, RULES, CODECS, TASKS, BACKENDS):
        registry.loaded.clear()


def written(algorithm: str, backend: str = "inline", workers: int = 2) -> Path:
    path = Path("mine.yaml")
    text = SCENARIO.format(algorithm=algorithm, backend=backend, workers=workers)
    path.write_text(text + (SIMULATED if backend == "sim" else ""))
    return path


@pytest.mark.parametrize("algorithm", CHOSEN)
@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
def test_it_runs_on_every_backend_and_repeats_to_the_bit(folder: Path, algorithm: str, backend: str) -> None:
    workers = 3 if backend == "sim" else 2
    said = asgd_lab("run", written(CHOSEN[algorithm], backend, workers), "--trust", "--out", "out")
    assert said.status == 0, f"in {folder}: {said}"
    code = json.loads(Path("out/manifest.json").read_text())["inputs"]["code"]
    assert list(code) == ["brought"]
    assert len(code["brought"]["sha256"]) == 64
    assert json.loads(Path("out/summary.json").read_text())["minibatches"] == 60
    again = asgd_lab("replay", "out")  # their own record: signed, so trusted
    assert (again.status, "bit" in again.out) == (0, True), again


def test_around_one_of_ours_has_its_bits(folder: Path) -> None:
    found = set()
    for index, algorithm in enumerate((CHOSEN["around one of ours"], "{name: asgd, n_fetch: 4, n_push: 2}")):
        out = f"out{index}"
        assert asgd_lab("run", written(algorithm, "sim", 3), "--trust", "--out", out).status == 0, f"in {folder}"
        found.add(json.loads(Path(out, "summary.json").read_text())["params_sha256"])
    assert len(found) == 1


def test_points_that_are_simulated_apart_find_it_too(folder: Path) -> None:
    sweep = "{algorithm: [{name: asgd, n_sync: 2}, {name: 'brought:Growing', n_sync: 2}], workers: [1, 2]}"
    path = written(CHOSEN["around one of ours"], "sim")
    path.write_text(path.read_text() + f"sweep: {sweep}\n")
    said = finish(start("run", path, "--trust", "--jobs", "2", "--out", "out", folder=folder))
    assert said.status == 0, said
    assert len(list(Path("out").glob("*Growing*/summary.json"))) == 2
    (folder / "brought.py").rename(folder / "out" / "brought.py")
    resumed = ("run", path, "--jobs", "2", "--resume", "--out", "out")
    assert asgd_lab(*resumed).status == 2, "it is not trusted"
    said = asgd_lab(*resumed, "--trust")
    assert "brought cannot be imported" in said.err, "it is neither here nor where it was"
    (folder / "out" / "brought.py").rename(folder / "brought.py")
    said = asgd_lab(*resumed, "--trust")
    assert (said.status, "4 of 4 points are done already" in said.out) == (0, True), said


def test_a_key_of_it_can_be_swept_and_set(folder: Path) -> None:
    path = written(CHOSEN["around one of ours"])
    said = asgd_lab("validate", path, "--trust", "--set", "sweep={algorithm.patience: [1, 2]}")
    assert (said.status, said.out) == (0, "mine.yaml: valid; 2 runs\n"), f"in {folder}: {said}"
    said = asgd_lab("validate", path, "--trust", "--set", "algorithm.patience=0")
    assert said.err == "--set algorithm.patience: must be a whole number, at least 1; got 0\n"
    said = asgd_lab("validate", path, "--trust", "--set", "sweep={algorithm.patients: [1, 2]}")
    assert "sweep.algorithm.patients: unknown key; did you mean 'patience'?" in said.err


@pytest.mark.parametrize("algorithm", CHOSEN)
def test_nothing_is_imported_that_is_not_trusted_and_the_rest_is_checked(folder: Path, algorithm: str) -> None:
    path = written(CHOSEN[algorithm])
    key = {"a rule": "algorithm.rule.1.name", "a codec": "algorithm.codec.name"}.get(algorithm, "algorithm.name")
    said = asgd_lab("run", path)
    assert (said.status, "brought" in sys.modules) == (2, False), f"in {folder}: {said}"
    assert said.err.startswith(f"mine.yaml:4: {key}: brought:")
    assert said.err.endswith("add --trust if you trust its author\n")
    assert len(said.err.splitlines()) == 1
    said = asgd_lab("validate", path)
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines()[0] == "mine.yaml: valid as far as it was checked; 1 run"
    assert said.out.splitlines()[1].startswith(f"mine.yaml: {key}: brought:")
    said = asgd_lab("validate", path, "--set", "task.optimizer.name=Sgd")
    assert said.status == 2
    assert "torch.optim has no 'Sgd'" in said.err
    said = asgd_lab("validate", path, "--set", "sweep={algorithm.patience: [1, 2]}")
    assert (said.status == 0) == (key == "algorithm.name"), said
    assert "brought" not in sys.modules


def test_a_strangers_record_is_not_repeated_unless_it_is_trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = ("--out", "out")
    assert asgd_lab("run", written(CHOSEN["a program of its own"], "sim"), "--trust", *out).status == 0
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "another user's"))  # whose key did not sign the record
    del sys.modules["brought"]
    said = asgd_lab("replay", "out")
    assert (said.status, "brought" in sys.modules) == (2, False)
    assert "brought:Growing (algorithm.name) would be imported and run" in said.err
    assert asgd_lab("replay", "out", "--trust").status == 0


def test_a_changed_source_is_told_when_a_run_is_repeated(folder: Path) -> None:
    assert asgd_lab("run", written(CHOSEN["a rule"], "sim"), "--trust", "--out", "out").status == 0
    (folder / "brought.py").write_text((folder / "brought.py").read_text() + "# changed\n")
    said = asgd_lab("replay", "out")
    assert f"the source of brought, {folder / 'brought.py'}, has changed since" in said.out, said


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        ("{name: 'brought:Growing', n_sinc: 4}", "algorithm.n_sinc: unknown key; did you mean 'n_sync'?"),
        ("{name: 'brought:Growing', n_sync: x}", "algorithm.n_sync: must be a whole number, at least 1; got 'x'"),
        ("{name: 'brought:Growing'}", "algorithm.n_sync: is missing; must be a whole number, at least 1"),
        ("{name: 'brought:Patient'}", "algorithm.n_sync: is missing; give n_sync, or n_fetch and n_push"),
        ("{name: 'brought:Growing', n_sync: 1, rule: [mean]}", "algorithm.rule.0: 'mean' averages a collected round"),
        ("{name: 'brought:Growth', n_sync: 1}", "algorithm.name: brought has no 'Growth'; did you mean 'Growing'?"),
        ("{name: 'nowhere:Growth', n_sync: 1}", "algorithm.name: nowhere cannot be imported: ModuleNotFoundError"),
        ("{name: 'brought:Sign', lr: 1}", "algorithm.name: brought:Sign is not of the kind: it must be a class below"),
        ("{name: 'broken:function'}", "algorithm.name: broken:function is not of the kind: it must be a class below"),
        ("{name: 'broken:Unsaid'}", "algorithm.name: broken:Unsaid must define sentence"),
        ("{name: 'broken:Keyless'}", "algorithm.name: its class must have n_fetch, n_push, rule, push"),
        ("{name: 'broken:Nothing', n_sync: 1}", "sentence must return a protocol.algorithms.Algorithm, not a NoneType"),
        ("{name: 'broken:Raising', n_sync: 1}", "algorithm.name: broken:Raising cannot be built: ZeroDivisionError"),
        ("{name: 'broken:Collecting', n_sync: 1}", "are (False, False, False, 0), its sentence (True,"),
        (
            "{name: 'broken:Failing', n_sync: 1}",
            "broken:Failing fails when it is tried: worker 0: the program",
        ),
        ("{name: 'broken:Strange', n_sync: 1}", "worker 0 yields 'fetch', which is no effect"),
        ("{name: 'broken:Holding', n_sync: 1}", "holds or keeps pushes, so its class must say: collects = True"),
        ("{name: 'broken:Deep', n_sync: 1}", "algorithm.name: a worker may have 2 pushes in flight, and a gate holds"),
        ("{name: 'broken:Hasty', n_sync: 1}", "broken:Hasty fails when it is tried: "),
        (
            "{name: asgd, n_sync: 1, rule: ['broken:Stumbling']}",
            "the rule broken:Stumbling failed: LookupError: no step (broken.py:",
        ),
        (
            "{name: asgd, n_sync: 1, codec: {name: cast, dtype: x}}",
            "algorithm.codec.dtype: must be 'bfloat16' or 'float16'",
        ),
        ("{name: asgd, n_sync: 1, codec: {name: 'brought:Rounded', dtype: x}}", "algorithm.codec.dtype: must be 'bfl"),
        ("{name: asgd, n_sync: 1, codec: {name: cast, type: x}}", "algorithm.codec.type: unknown key; did you mean"),
        ("{name: asgd, n_sync: 1, codec: cats}", "algorithm.codec: must be 'cast'; got 'cats'; did you mean 'cast'?"),
        ("{name: 'broken:Choosy', n_sync: 2}", "algorithm.n_sync: must be odd"),
        (
            "{name: asgd, n_sync: 1, rule: ['brought:Sign']}",
            "algorithm.rule.0.lr: is missing; must be a number, above 0",
        ),
        ("{name: asgd, n_sync: 1, rule: ['brought:Sing']}", "algorithm.rule.0: brought has no 'Sing'; did you mean"),
        ("{name: asgd, n_sync: 1, rule: ['brought:Growing']}", "algorithm.rule.0: brought:Growing is not of the kind"),
        (
            "{name: asgd, n_sync: 1, rule: ['broken:Lying']}",
            "algorithm.rule.0: broken:Lying cannot be built: ValueError",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_file_line_and_key(folder: Path, algorithm: str, message: str) -> None:
    for more in ((), ("--set", "workers=2")):
        said = asgd_lab("validate", written(algorithm), "--trust", *more)
        assert (said.status, len(said.err.splitlines())) == (2, 1), f"in {folder}: {said}"
        assert said.err.startswith("mine.yaml:4: algorithm")
        assert message in said.err


def test_one_that_asks_to_be_woken_needs_a_clock(folder: Path) -> None:
    algorithm = "{name: 'broken:Woken', n_sync: 1}"
    said = asgd_lab("run", written(algorithm), "--trust", "--out", "out")
    assert said.status == 2, f"in {folder}: {said}"
    message = "mine.yaml:4: algorithm.name: broken:Woken needs a clock, which backend inline does not have"
    assert said.err.startswith(message)
    assert asgd_lab("run", written(algorithm, "sim"), "--trust", "--out", "out").status == 0


def test_one_that_never_ends_is_not_tried_for_ever(folder: Path) -> None:
    said = asgd_lab("validate", written("{name: 'broken:Endless', n_sync: 1}"), "--trust")
    assert said.status in (0, 2), f"in {folder}: {said}"


@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        (
            "{name: 'broken:Failing', n_sync: 1, after: 22}",
            "the program of broken:Failing failed: LookupError: no program (broken.py:",
        ),
        ("{name: 'broken:Greedy', n_sync: 1, after: 22}", "pushes 6 minibatches and owes 1"),
        ("{name: 'broken:Gated', n_sync: 1}", "broken:Gated failed: LookupError: no gate (broken.py:"),
        (
            "{name: asgd, n_sync: 1, rule: [{name: 'broken:Stumbling', after: 50}]}",
            "the rule broken:Stumbling failed: LookupError: no step (broken.py:",
        ),
    ],
)
def test_what_fails_in_the_midst_of_a_run_fails_it_in_one_line(
    folder: Path, backend: str, algorithm: str, message: str
) -> None:
    said = asgd_lab("run", written(algorithm, backend), "--trust", "--out", "out")
    assert said.status == 1, f"in {folder}: {said}"
    assert message in said.err.splitlines()[-1]
    assert "asgd_lab.errors" not in said.err
    assert "Traceback" in "".join(log.read_text() for log in Path("out/logs").iterdir())


def test_an_installed_distribution_registers_names_that_need_no_trust(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = folder / "site"
    info = site / "ringers-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ringers\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[asgd_lab.algorithms]\ngrowing = ringers:Growing\nlost = ringers:Lost\n[asgd_lab.rules]\nsign = ringers:Sign\n"
    )
    (folder / "brought.py").rename(site / "ringers.py")
    path = written("{name: growing, n_sync: 2, rule: [{name: sign, lr: 0.01}]}", "process")
    said = asgd_lab("validate", path)
    assert said.err.startswith("mine.yaml:4: algorithm.name: must be 'asgd', "), f"in {folder}: {said}"
    monkeypatch.syspath_prepend(str(site))
    assert asgd_lab("run", path, "--out", "out").status == 0
    assert list(json.loads(Path("out/manifest.json").read_text())["inputs"]["code"]) == ["ringers"]
    said = asgd_lab("replay", "out")
    assert (said.status, said.err) == (0, "")
    said = asgd_lab("list", "algorithms")
    assert "Pushes after 1, 2, 4, ... minibatches" in " ".join(said.out.split())
    assert "ringers has no 'Lost'" in " ".join(said.out.split())
    assert "Lr times the sign of each element." in asgd_lab("list", "rules").out


OTHERS = {
    "task.name": ("task={name: 'brought:Slope', slope: 2.0}", "brought:Slope"),
    "backend.name": ("backend='brought:Aside'", "brought:Aside"),
}


@pytest.mark.parametrize("key", OTHERS)
def test_a_task_and_a_backend_are_brought_likewise(folder: Path, key: str) -> None:
    path, (setting, name) = written("{name: asgd, n_sync: 2}", "inline"), OTHERS[key]
    command = (path, "--set", setting)
    said = asgd_lab("run", *command)
    assert (said.status, "brought" in sys.modules) == (2, False), f"in {folder}: {said}"
    assert f"{key}: {name} would be imported and run" in said.err
    said = asgd_lab("validate", *command)
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines()[1].startswith(f"mine.yaml: {key}: {name} was not imported")
    assert asgd_lab("run", *command, "--trust", "--out", "out").status == 0
    assert list(json.loads(Path("out/manifest.json").read_text())["inputs"]["code"]) == ["brought"]
    assert Path("aside").exists() == (key == "backend.name")
    said = asgd_lab("replay", "out")
    assert (said.status, said.err) == (0, "")


def test_what_is_wrong_beside_a_task_or_a_backend_of_theirs_has_file_line_and_key(folder: Path) -> None:
    path = written("{name: asgd, n_sync: 2}", "inline")
    for settings, message in (
        (["task={name: 'brought:Slope', slope: 0}"], "task.slope: must be a number, above 0; got 0"),
        (["task={name: 'brought:Slop', slope: 1}"], "task.name: brought has no 'Slop'; did you mean 'Slope'?"),
        (["task={name: 'brought:Aside'}"], "task.name: brought:Aside is not of the kind: it must be a class below"),
        (["task={name: 'brought:Slope', slope: 1}", "budget.target_error=0.1"], "brought:Slope has no error"),
        (["backend='brought:Aside'", "workers=4"], "workers: must be at most 3 with backend brought:Aside; got 4"),
        (["backend='brought:Aside'", "budget.seconds=1"], "needs a clock, and backend brought:Aside has none"),
        (["backend='brought:Asides'"], "backend: brought has no 'Asides'; did you mean 'aside'?"),
        (["backend='brought:Slope'"], "backend: brought:Slope is not of the kind: it must be a class below"),
    ):
        said = asgd_lab("validate", path, "--trust", *(each for one in settings for each in ("--set", one)))
        assert (said.status, len(said.err.splitlines())) == (2, 1), f"in {folder}: {said}"
        assert said.err.startswith("--set ")
        assert message in said.err


def test_the_schema_takes_any_name_of_that_form_and_the_keys_of_those_it_knows(folder: Path) -> None:
    data = {
        "name": "mine",
        "task": {"name": "quadratic", "curvature": [1.0]},
        "algorithm": {"name": "brought:Growing", "n_sync": 1, "whatever": 2},
        "budget": {"updates": 1},
    }
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(data), folder
    data["algorithm"] = {"name": "asgd", "n_sync": 1, "rule": ["brought:Sign", {"name": "brought:Sign", "lr": 1}]}
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(data)
    data["algorithm"] = {"name": "brought", "n_sync": 1}
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(data)
