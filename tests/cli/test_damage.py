"""Every file of a run directory x every damage x every command that reads it: found, harmless, or fallen back.

Never silent, never a traceback, never anything removed. Whole under ASGD_LAB_WHOLE=1; a seeded sample otherwise.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from asgd_lab.backends.outcome import Progress
from asgd_lab.backends.run import execute
from asgd_lab.record import atomic_files, checkpoints
from asgd_lab.scenario import Document
from asgd_lab.trust import trusting
from tests.cli.harness import PATIENCE_S, Said, asgd_lab, assert_nobody_is_left
from tests.whole import WHOLE, sample

REAL = """\
name: bowl
seed: {seed}
task: {{name: quadratic, curvature: [1.0, 4.0], noise: 0.1}}
algorithm: {{name: asgd, n_sync: 2}}
workers: 2
budget: {{minibatches: 4000}}
backend: {{name: process, digest_every_updates: 20, checkpoint: {{every_updates: 30, keep: 2}}}}
evaluate: {{every_minibatches: 20, parameters: [server, replicas]}}
"""
# Buffers, and vectors of the optimizer and of the server's rule.
TRAINED = """\
name: network
seed: {seed}
task:
  name: classification
  dataset: tests.tasks.test_warm_buffers:data
  model: tests.tasks.test_warm_buffers:Centred
  batch_size: 8
  optimizer: {{name: Adam, lr: 0.01}}
algorithm: {{name: asgd, n_sync: 2, rule: [{{name: momentum, beta: 0.5}}]}}
workers: 2
"""
# fmt: off
NETWORK = TRAINED + """\
budget: {{minibatches: 4000}}
backend: {{name: process, digest_every_updates: 20, checkpoint: {{every_updates: 30, keep: 2}}}}
evaluate: {{every_minibatches: 20, parameters: [server, replicas]}}
"""
SIMULATED = """\
name: bowl
seed: {seed}
task: {{name: quadratic, curvature: [1.0, 4.0], noise: 0.1}}
algorithm: {{name: asgd, n_sync: 2}}
workers: 2
budget: {{minibatches: 60}}
backend: sim
hardware: {{compute: {{step_s: 0.01}}}}
evaluate: {{every_minibatches: 20}}
"""
SWEEP = SIMULATED + "sweep: {{algorithm.n_sync: [1, 2]}}\n"
WARM = SIMULATED + "warm_start: {{run: {run}}}\n"
WARM_NETWORK = TRAINED + """\
budget: {{minibatches: 40}}
backend: sim
hardware: {{compute: {{step_s: 0.01}}}}
warm_start: {{run: {run}}}
"""
# fmt: on
TIMED = """\
name: timed
seed: 1
task: {{name: timing, size_bytes: 4000}}
algorithm: {{name: asgd, n_sync: 2}}
workers: 2
budget: {{minibatches: 60}}
backend: sim
hardware: {{compute: {{distribution: empirical, run: {run}}}}}
"""


def flipped(place: int) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        if not content:
            return b"\1"
        at = random.Random(f"{place} {len(content)}").randrange(8 * len(content))
        return content[: at // 8] + bytes([content[at // 8] ^ 1 << at % 8]) + content[at // 8 + 1 :]

    return change


CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "a byte less": lambda content: content[:-1],
    "a page less": lambda content: content[:-4096],
    "a page more": lambda content: content + random.Random(5).randbytes(4096),
    "two bits": lambda content: flipped(4)(flipped(5)(content)),
    "zeros": lambda content: bytes(len(content)),
    "garbage": lambda content: random.Random(7).randbytes(max(1, len(content))),
    **{f"bit {place}": flipped(place) for place in range(4)},
}
DAMAGES = ["absent", "a directory", "a pipe", "endless", "a broken link", "another run's", *CONTENTS]


def damage(path: Path, how: str, other: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    if how == "a directory":
        path.mkdir()
    elif how == "a pipe":
        os.mkfifo(path)
    elif how == "endless":
        path.symlink_to("/dev/zero")
    elif how == "a broken link":
        path.symlink_to("nowhere")
    elif how == "another run's":
        if other.is_file():
            shutil.copyfile(other, path)
        else:
            path.write_bytes(content[: len(content) // 3])
    elif how != "absent":
        path.write_bytes(CONTENTS[how](content))


def contents(folder: Path) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else "folder"
    return found


class Outcome(NamedTuple):
    said: Said
    result: Any  # what the command made


def of_summary(said: Said, out: Path) -> Outcome:
    if said.status:
        return Outcome(said, None)
    facts = atomic_files.read_json(out / "summary.json")
    return Outcome(said, {key: value for key, value in facts.items() if key not in ("machine_load", "startup_s")})


def replay(run: Path, folder: Path) -> Outcome:
    said = asgd_lab("replay", run, "--trust")
    return Outcome(said, said.status)


def tensorboard(run: Path, folder: Path) -> Outcome:
    said = asgd_lab("tensorboard", run, "--out", folder / "board")
    events = sorted((folder / "board").rglob("events*")) if said.status == 0 else []
    return Outcome(said, [path.read_bytes() for path in events])


def started(text: str) -> Callable[[Path, Path], Outcome]:
    def run_it(run: Path, folder: Path) -> Outcome:
        (folder / "next.yaml").write_text(text.format(run=run, seed=1), encoding="utf-8")
        return of_summary(asgd_lab("run", folder / "next.yaml", "--trust", "--out", folder / "next"), folder / "next")

    return run_it


def resume(text: str) -> Callable[[Path, Path], Outcome]:
    def run_it(run: Path, folder: Path) -> Outcome:
        (folder / "same.yaml").write_text(text.format(seed=1), encoding="utf-8")
        said = asgd_lab("run", folder / "same.yaml", "--trust", "--resume", "--out", run)
        return Outcome(said, said.status)

    return run_it


COMMANDS: dict[tuple[str, str], Callable[[Path, Path], Outcome]] = {
    ("real", "replay"): replay,
    ("real", "tensorboard"): tensorboard,
    ("real", "warm_start.run"): started(WARM),
    ("real", "hardware.compute.run"): started(TIMED),
    ("real", "run --resume"): resume(REAL),
    ("simulated", "replay"): replay,
    ("simulated", "tensorboard"): tensorboard,
    ("simulated", "warm_start.run"): started(WARM),
    ("simulated", "hardware.compute.run"): started(TIMED),
    ("simulated", "run --resume"): resume(SIMULATED),
    ("sweep", "tensorboard"): tensorboard,
    ("sweep", "run --resume"): resume(SWEEP),
    ("interrupted", "replay"): replay,
    ("interrupted", "warm_start.run"): started(WARM),
    ("interrupted", "run --resume"): resume(REAL),
    ("killed", "replay"): replay,
    ("killed", "warm_start.run"): started(WARM_NETWORK),
    ("killed", "run --resume"): resume(NETWORK),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Of each kind a run, and another one of the same kind."""
    folder = tmp_path_factory.mktemp("kinds")

    def interrupt(progress: Progress) -> None:
        if progress.version >= 75:
            raise KeyboardInterrupt

    texts = {"real": REAL, "interrupted": REAL, "killed": NETWORK, "simulated": SIMULATED, "sweep": SWEEP}
    for kind, text in texts.items():
        for seed in (1, 2):
            (folder / "it.yaml").write_text(text.format(seed=seed), encoding="utf-8")
            out = folder / f"{kind}-{seed}"
            if kind == "interrupted":
                (point,) = Document.read(str(folder / "it.yaml")).points()
                for _ in range(10):  # on a busy machine a run may end before anybody looks at it
                    status = execute(point.scenario, out, interrupt)["status"]
                    if status == "interrupted" and len(checkpoints.all_of(out)) == 2:
                        break
                    shutil.rmtree(out)
                assert len(checkpoints.all_of(out)) == 2
            elif kind == "killed":
                killed(folder / "it.yaml", out)
            else:
                assert asgd_lab("run", folder / "it.yaml", "--out", out, "--jobs", "1").status == 0
    return {kind: (folder / f"{kind}-1", folder / f"{kind}-2") for kind in texts}


def die(file: str, out: str) -> None:
    """Run until there are two checkpoints, and then kill all processes of this one's group."""

    def kill(progress: Progress) -> None:
        if progress.version >= 75 and len(checkpoints.all_of(Path(out))) == 2:
            os.killpg(0, signal.SIGKILL)

    (point,) = Document.read(file).points()
    with trusting(True):
        execute(point.scenario, Path(out), kill)


def killed(file: Path, out: Path) -> None:
    for _ in range(10):  # on a busy machine a run may end before anybody looks at it
        code = "import sys; from tests.cli.test_damage import die; die(*sys.argv[1:])"
        command = [sys.executable, "-c", code, str(file), str(out)]
        program = subprocess.Popen(command, start_new_session=True, cwd=Path(__file__).parents[2])
        if program.wait(PATIENCE_S) == -signal.SIGKILL:
            assert_nobody_is_left(program.pid)
            return
        shutil.rmtree(out)
    raise AssertionError("it was never killed")


def fell_back(said: Said) -> bool:
    return said.status == 0 and "the checkpoint before it is used" in " ".join(said.out.split())


def told_of(kind: str, name: str, how: str) -> set[str]:
    """Of which one must be in the line that refuses a damaged file: its name, or of that which it is damaged for."""
    names = {Path(name).name}
    if Path(name).name == "manifest.json":  # without it there is no run; another run's vouches for other files
        names |= {"holds no run", *(Path(each).name for each in FILES[kind])}
    elif Path(name).name == "scenario.yaml":
        names.add("scenario")
    elif Path(name).name == "events.rows" and how == "another run's":  # whole, and not what these parameters come from
        names.add("in the record")
    elif Path(name).parent != Path("."):
        names.add(f"{Path(name).parent}/")
    return names


def judged(kind: str, command: str, name: str, how: str, run: Path, other: Path, folder: Path) -> str:
    """What became of one case: detected, harmless or fell back; an AssertionError else."""
    act, (whole_dir, hurt_dir) = COMMANDS[kind, command], (folder / "whole", folder / "hurt")
    for place in (whole_dir, hurt_dir):
        place.mkdir(parents=True)
    hurt = Path(shutil.copytree(run, hurt_dir / "run", symlinks=True))
    damage(hurt / name, how, other / name)
    before = contents(hurt)
    said, result = act(hurt, hurt_dir)
    case = (kind, command, name, how, said)
    if said.status:
        assert said.status in (1, 2), case
        lines = said.err.strip().splitlines()
        assert len(lines) == 1 or (name.endswith("scenario.yaml") and all(name in line for line in lines)), case
        assert any(part in said.err for part in told_of(kind, name, how)), case
        assert contents(hurt) == before, ("something was changed", *case)
        return "detected"
    if fell_back(said):
        assert replay(hurt, hurt_dir).said.status == 0, case
        return "fell back"
    unread = f"{hurt / Path(name).parent}/"
    if command == "tensorboard" and kind == "sweep" and unread in said.out.replace("\n", ""):
        return "detected"  # of several runs, those that cannot be read are told and left out
    expected = act(Path(shutil.copytree(run, whole_dir / "run")), whole_dir)
    assert result == expected.result, ("silently another", *case)
    if kind in ("interrupted", "killed") and command == "run --resume":
        assert replay(hurt, hurt_dir).said.status == 0, case
    return "harmless"


CHECKPOINTS = [
    f"checkpoints/{which}/{name}"
    for which in ("older", "newer")
    for name in ("state.json", "server.npz", "worker-0.npz", "worker-1.npz")
]
PARTS = [
    f"parts/{name}"
    for name in ("worker-0*.effects", "worker-1*.minibatches", "server.snapshots", "server.0.npz",
                 "replica-0.snapshots", "replica-0.0.npz")
]  # fmt: skip
FILES = {
    "real": ["manifest.json", "scenario.yaml", "summary.json", "effects.parquet", "minibatches.parquet",
             "evals.parquet", "events.rows", "trace.json", "checkpoints/final.npz"],
    "simulated": ["manifest.json", "scenario.yaml", "summary.json", "effects.parquet", "minibatches.parquet",
                  "evals.parquet", "trace.json", "checkpoints/final.npz"],
    "sweep": [f"algorithm.n_sync=1/{name}" for name in (
        "manifest.json", "scenario.yaml", "summary.json", "effects.parquet", "evals.parquet")],
    "interrupted": ["manifest.json", "scenario.yaml", "summary.json", "effects.parquet", "events.rows",
                    "checkpoints/final.npz",
                    *CHECKPOINTS, *PARTS],
    "killed": ["manifest.json", "scenario.yaml", "events.rows", "effects.parquet.part", *CHECKPOINTS, *PARTS,
               "parts/worker-0.snapshots", "parts/worker-0.0.npz"],
}  # fmt: skip
SLOW = [("interrupted", "run --resume"), *((kind, command) for kind, command in COMMANDS if kind == "killed")]
# In one process where they are few: the runs take longer to make than to try.
pytestmark = [] if WHOLE else [pytest.mark.xdist_group("damage")]
QUICK = [key for key in COMMANDS if key not in SLOW]


def cases(commands: list[tuple[str, str]]) -> list[tuple[str, str, str, str]]:
    return [(*key, name, how) for key in commands for name in FILES[key[0]] for how in DAMAGES]


@pytest.mark.parametrize(("kind", "command", "name", "how"), [*sample(cases(QUICK), 24), *sample(cases(SLOW), 8)])
def test_a_damaged_file_is_found_or_harmless(
    runs: dict[str, tuple[Path, Path]], tmp_path: Path, kind: str, command: str, name: str, how: str,
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    run, other = runs[kind]
    for which, path in zip(("older", "newer"), checkpoints.all_of(run), strict=False):
        name = name.replace(f"checkpoints/{which}/", f"checkpoints/{path.name}/")
    name = str(min(run.glob(name)).relative_to(run))
    record_property("outcome", judged(kind, command, name, how, run, other, tmp_path))


def test_a_killed_run_is_told_to_be_unfinished_by_who_needs_its_end(
    runs: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    run, _ = runs["killed"]
    for act in (tensorboard, started(TIMED)):
        said = act(run, tmp_path).said
        assert said.status == 2
        assert f"{run}: is not a finished run" in said.err.replace("\n", " ")


def test_the_files_of_a_run_are_all_tried(runs: dict[str, tuple[Path, Path]]) -> None:
    for kind in ("real", "simulated"):
        found = {str(path.relative_to(runs[kind][0])) for path in runs[kind][0].rglob("*") if path.is_file()}
        untried = {name for name in found - {*FILES[kind]} if not name.startswith("checkpoints/0")}
        unread = {name for name in found if name.startswith("logs/") or name == "report.html"}  # by any command
        assert untried <= unread, untried
