"""Sweeps and replications: in several processes or one, gone on with, with intervals; and how they end otherwise."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pandas as pd
import psutil
import pytest
from scipy import stats

from asgd_lab import run_points, sweep
from asgd_lab.app.sweep_display import SweepDisplay
from asgd_lab.backends.outcome import Outcome, Progress, Watch
from asgd_lab.backends.real.pool import Job, main
from asgd_lab.backends.real.preload import POOL_MODULES, preload
from asgd_lab.errors import ScenarioError
from asgd_lab.record import tables
from asgd_lab.record.run import RunDirectory, mark, read_summary
from asgd_lab.record.summary import Statistics
from asgd_lab.scenario import Document, Scenario
from tests.cli.harness import QUADRATIC, Said, asgd_lab, assert_nobody_is_left, await_line, crew, finish, start

INLINE = ("--backend", "inline", "--set", "hardware={}")
DIGITS = """\
name: digits
seed: 3
task: {name: classification, dataset: digits, model: mlp, batch_size: 16, train_samples: 256}
algorithm: {name: asgd, n_sync: 2}
workers: 3
budget: {minibatches: 90}
evaluate: {every_minibatches: 30, parameters: [server, replicas]}
backend: sim
hardware: {compute: {distribution: lognormal, cv: 0.5, step_s: 0.01}}
sweep: {algorithm.n_sync: [1, 5], workers: [2, 3]}
"""
# Long enough that nothing but a signal ends it.
ENDLESS = """\
name: endless
task: {name: timing, size_bytes: 4000, step_s: 0.002}
algorithm: {name: asgd, n_sync: 2}
workers: 2
budget: {seconds: 1.0e+9}
backend: sim
record: summary
sweep: {seed: [1, 2, 3]}
"""


@pytest.fixture
def bowl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return written(tmp_path, monkeypatch, QUADRATIC + "sweep: {algorithm.n_sync: [1, 4]}\n")


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    yield
    assert not runners(), "a process of the pool outlived its sweep"


def written(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    monkeypatch.chdir(folder)
    path = Path("scenario.yaml")
    path.write_text(text)
    return path


def runners() -> list[psutil.Process]:
    """The processes of a pool of this process: children of its fork server."""
    servers = psutil.Process().children()
    return [child for server in servers for child in server.children() if child.status() != psutil.STATUS_ZOMBIE]


def runner_of(path: Path) -> psutil.Process:
    """The one that is at this run: it has files of the run open."""
    held = f"{path.resolve()}/"
    (found,) = (each for each in runners() if any(file.path.startswith(held) for file in each.open_files()))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of every run, but the manifests, which tell the time."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def status(path: Path) -> str:
    found: str = json.loads((path / "manifest.json").read_text())["status"]
    return found


def once_looked_at(monkeypatch: pytest.MonkeyPatch, names: set[str], act: Callable[[], None]) -> None:
    """Act once, when all points of these names are under way."""
    look = SweepDisplay.look
    awaited = set(names)

    def watched(self: SweepDisplay, point: str, scenario: Scenario, progress: Progress) -> None:
        look(self, point, scenario, progress)
        if progress.seconds > 0 and point in awaited:
            awaited.remove(point)
            if not awaited:
                act()

    monkeypatch.setattr(SweepDisplay, "look", watched)


# ---------------------------------------------------------------- jobs


def test_a_sweep_leaves_the_same_bytes_in_however_many_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, monkeypatch, DIGITS)
    said = {jobs: asgd_lab("run", path, "--out", f"out-{jobs}", "--jobs", str(jobs)) for jobs in (1, 3)}
    assert {(each.status, each.err) for each in said.values()} == {(0, "")}
    reference = contents(Path("out-1"))
    assert len(reference) == 4 * 7 + 2 + 2, "the index and the table, and the figure in two formats"
    assert contents(Path("out-3")) == reference, "a process has two of the points"
    assert "4 points, 3 at a time, into out-3\n" in said[3].out
    assert sorted(line[:5] for line in said[3].out.splitlines() if line.startswith("[")) == [
        f"[{number}/4]" for number in (1, 2, 3, 4)
    ]
    after = [each.out[each.out.index("┏") :].replace(f"out-{jobs}", "out") for jobs, each in said.items()]
    assert len(set(after)) == 1, "the same is told of them"


def test_what_is_measured_runs_in_this_process_when_nothing_else_does(
    bowl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def measure(scenario: Scenario, record: RunDirectory, watch: Watch | None) -> Outcome:
        seen.append((scenario.algorithm.n_fetch, len(runners())))
        return Outcome(Statistics(scenario.workers), 10**9, 1, None, {}, {})

    monkeypatch.setattr("asgd_lab.backends.real.launch.run", measure)
    sweep = "sweep={algorithm.n_sync: [1, 4], backend.name: [process, inline]}"
    said = asgd_lab("run", bowl, "--out", "out", "--jobs", "2", "--set", sweep)
    assert said.status == 0
    line = "warning: hardware: is for simulated and emulated runs; {} ignores it"
    assert said.err.splitlines() == [line.format("a real one on cpu"), line.format("backend inline")]
    assert seen == [(1, 0), (4, 0)]
    assert "2 points, 2 at a time" in said.out


def test_a_killed_process_fails_its_own_point_only_which_resume_then_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ENDLESS.replace("seconds: 1.0e+9", "minibatches: 100000").replace(
        "seed: [1, 2, 3]", "algorithm.n_sync: [1, 9]"
    )
    command = ("run", written(tmp_path, monkeypatch, text), "--out", "out", "--jobs", "2", "--seeds", "2")
    victim = Path("out/algorithm.n_sync=1,seed=0")
    with monkeypatch.context() as patched:
        once_looked_at(patched, {victim.name}, lambda: os.kill(runner_of(victim).pid, signal.SIGKILL))
        said = asgd_lab(*command)
    failure = f"{victim.name}: its process was killed by SIGKILL; what was recorded is in {victim}\n"
    assert (said.status, said.err) == (1, failure)
    assert f"{victim.name}: failed: its process was killed by SIGKILL\n" in said.out
    assert "[4/4] " in said.out
    states = {path.name: status(path) for path in Path("out").iterdir() if path.is_dir()}
    assert states.pop(victim.name) == "failed"
    assert list(states.values()) == ["done"] * 3
    kept = {path: path.stat() for path in Path("out").rglob("*.parquet") if victim not in path.parents}
    said = asgd_lab(*command, "--resume")
    assert (said.status, said.err) == (0, "")
    assert "3 of 4 points are done already\n" in said.out
    assert status(victim) == "done"
    assert {path: path.stat() for path in kept} == kept


def test_a_bug_in_one_point_is_a_failure_with_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(tmp_path / "fragile.py").write_text(
        "import torch\n"
        "class Fragile(torch.nn.Linear):\n"
        "    calls = 0\n"
        "    def forward(self, x):\n"
        "        counts = self.training and len(x) == 8\n"
        "        Fragile.calls += counts\n"
        "        if counts and Fragile.calls > 900: raise ValueError('worn out')\n"  # after the start's checks
        "        return super().forward(x.flatten(1))\n"
        "def make(num_classes):\n"
        "    return Fragile(64, num_classes)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    long = DIGITS.replace("minibatches: 90", "minibatches: 1500").replace("algorithm.n_sync: [1, 5], ", "")
    text = long.replace("model: mlp", "model: 'fragile:make'").replace("workers: [2, 3]", "task.batch_size: [8, 16]")
    path = written(tmp_path, monkeypatch, text)
    said = asgd_lab("run", path, "--trust", "--out", "out", "--jobs", "2")
    folder = Path("out/task.batch_size=8")
    why = r"worker \d: minibatch \d+ failed: ValueError: worn out \(fragile\.py:7\)"
    reason = rf"{why}; the traceback is in {folder}/logs/run\.log; what was recorded is in {folder}"
    assert said.status == 1, said
    warned = r"warning: task\.model: fragile:make changes a global or its class while it trains, [^\n]*\n"
    assert re.fullmatch(rf"{warned}{folder.name}: {reason}\n", said.err), said.err
    assert "Traceback" in (folder / "logs" / "run.log").read_text()
    assert status(Path("out/task.batch_size=16")) == "done"


def test_wrong_input_that_only_a_run_finds_ends_the_sweep_with_status_2(
    bowl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(scenario: Scenario, path: Path, watch: Watch, **_: bool) -> None:
        raise ScenarioError.at("algorithm.n_sync", "is not to be had today")

    monkeypatch.setattr(run_points, "execute", refuse)
    said = asgd_lab("run", bowl, "--out", "out", "--jobs", "1")
    assert said.status == 2
    assert said.err.startswith("scenario.yaml:9: sweep.algorithm.n_sync: is not to be had today")


def test_ctrl_c_stops_all_runs_and_keeps_what_they_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, monkeypatch, ENDLESS.replace("summary", "all"))

    def interrupt() -> None:
        raise KeyboardInterrupt

    once_looked_at(monkeypatch, {"seed=1", "seed=2"}, interrupt)
    said = asgd_lab("run", path, "--out", "out", "--jobs", "2")
    assert said.status == 130
    assert said.err == "interrupted; what was recorded is in out, and --resume goes on with it\n"
    for run in (Path("out/seed=1"), Path("out/seed=2")):
        assert status(run) == read_summary(run)["status"] == "interrupted"
        assert len(tables.read(run, "effects")) > 0
    assert not Path("out/seed=3").exists()


def test_a_second_ctrl_c_waits_for_nobody(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(ENDLESS)
    program = start("run", "scenario.yaml", "--out", "out", "--jobs", "2", folder=tmp_path)
    await_line(program, "running: ")
    crew(program)[0].suspend()
    os.killpg(program.pid, signal.SIGINT)
    await_line(program, "Ctrl-C again")
    os.killpg(program.pid, signal.SIGINT)
    expected = "interrupted; what was recorded is in out, and --resume goes on with it\n"
    assert finish(program) == Said(130, "", expected)
    assert_nobody_is_left(program.pid)


def hold(line: Connection, job: Job, heard: Connection) -> None:
    """A parent: gives a run to do, and says when it is under way."""
    line.send(job)
    while line.recv().seconds == 0:
        pass
    heard.send(True)
    heard.poll(None)


def test_a_run_ends_with_its_parent_and_records_what_it_has(tmp_path: Path) -> None:
    preload(POOL_MODULES)
    context = multiprocessing.get_context("forkserver")
    (ours, theirs), (heard, said) = context.Pipe(), context.Pipe()
    (tmp_path / "scenario.yaml").write_text(ENDLESS)
    scenario = Document.read(tmp_path / "scenario.yaml").points()[0].scenario
    parent = context.Process(target=hold, args=(ours, Job(scenario, tmp_path / "out", False), said))
    runner = context.Process(target=main, args=(theirs,))
    for process in (parent, runner):
        process.start()
    for end in (ours, theirs, said):
        end.close()
    assert heard.recv()
    parent.kill()
    for process in (parent, runner):
        process.join()
    assert (parent.exitcode, runner.exitcode) == (-signal.SIGKILL, 0)
    assert status(tmp_path / "out") == "interrupted"
    heard.close()


# ---------------------------------------------------------------- resume


def test_resume_runs_what_is_not_done_and_nothing_else(bowl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--out", "out", "--jobs", "1", "--seeds", "2", *INLINE)
    asgd_lab("run", bowl, *options)
    before, out = contents(Path("out")), Path("out")
    undone = [out / f"algorithm.n_sync={n_sync},seed={seed}" for n_sync, seed in [(1, 4), (4, 3)]]
    mark(undone[0], "failed")
    mark(undone[1], "interrupted")
    (undone[1] / "effects.parquet").unlink()
    said = asgd_lab("run", bowl, *options, "--resume")
    assert (said.status, said.err) == (0, "")
    assert "2 of 4 points are done already\n" in said.out
    assert [line.split(":")[0] for line in said.out.splitlines() if line.startswith("[")] == [
        f"[3/4] {undone[0].name}",
        f"[4/4] {undone[1].name}",
    ]
    assert contents(out) == before
    monkeypatch.setattr(run_points, "execute", None)
    said = asgd_lab("run", bowl, *options, "--resume")
    assert "4 of 4 points are done already\n" in said.out
    assert "│ algorithm.n_sync=4 │     2 │" in said.out


def test_resume_goes_on_with_more_points_and_more_seeds(bowl: Path) -> None:
    options = ("--out", "out", "--jobs", "1", *INLINE)
    asgd_lab("run", bowl, *options, "--seeds", "2")
    more = ("--seeds", "3", "--set", "sweep.algorithm.n_sync=[1, 2, 4]", "--resume")
    said = asgd_lab("run", bowl, *options, *more)
    assert (said.status, said.err) == (0, "")
    assert "4 of 9 points are done already\n" in said.out
    assert len([path for path in Path("out").iterdir() if path.is_dir()]) == 9


def test_resume_refuses_a_run_of_another_scenario_before_anything_is_removed(bowl: Path) -> None:
    options = ("--out", "out", "--jobs", "1", *INLINE)
    asgd_lab("run", bowl, *options)
    mark(Path("out/algorithm.n_sync=1"), "failed")
    before = contents(Path("out"))
    bowl.write_text(bowl.read_text().replace("curvature: [1.0, 4.0]", "curvature: [1.0, 3.0]"))
    said = asgd_lab("run", bowl, *options, "--resume")
    refused = "--resume: out/algorithm.n_sync=1 holds a run of another scenario: task.curvature.1 is 4.0 there and "
    refused += "3.0 here; choose another --out\n"
    assert (said.status, said.err) == (2, refused)
    assert contents(Path("out")) == before


def test_a_single_run_that_is_done_is_told_again_and_not_run_again(bowl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--out", "out", *INLINE, "--set", "sweep={}")
    first = asgd_lab("run", bowl, *options)
    mark(Path("out"), "interrupted")
    again = asgd_lab("run", bowl, *options, "--resume")
    assert again == first
    monkeypatch.setattr(run_points, "execute", None)
    said = asgd_lab("run", bowl, *options, "--resume")
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines() == ["bowl: is done already", *first.out.splitlines()[1:]]


def test_a_single_run_and_a_sweep_do_not_go_on_in_each_others_place(bowl: Path) -> None:
    alone, swept = (*INLINE, "--set", "sweep={}"), (*INLINE, "--jobs", "1")
    asgd_lab("run", bowl, "--out", "alone", *alone)
    asgd_lab("run", bowl, "--out", "swept", *swept)
    said = asgd_lab("run", bowl, "--out", "alone", *swept, "--resume")
    assert said == Said(2, "", "--resume: alone holds a single run, not a sweep; choose another --out\n")
    said = asgd_lab("run", bowl, "--out", "swept", *alone, "--resume")
    line = (
        "--resume: swept holds something else than this run; choose another --out (it has no plain file scenario.yaml)"
    )
    assert said == Said(2, "", f"{line}\n")


def test_resume_without_a_place_is_refused(bowl: Path) -> None:
    said = asgd_lab("run", bowl, "--resume")
    assert said == Said(2, "", "--resume: needs --out DIR, the directory to go on in\n")


# ---------------------------------------------------------------- replications


def test_seeds_run_every_point_so_often_and_give_its_means_their_intervals(bowl: Path) -> None:
    said = asgd_lab("run", bowl, "--out", "out", "--jobs", "1", "--seeds", "3", "--seed", "7")
    assert (said.status, said.err) == (0, "")
    table = pd.read_csv("out/sweep.csv")
    assert list(table.columns) == ["algorithm.n_sync", "metric", "mean", "low", "high", "n"]
    for n_sync in (1, 4):
        runs = [read_summary(f"out/algorithm.n_sync={n_sync},seed={seed}") for seed in (7, 8, 9)]
        rows = table[table["algorithm.n_sync"] == n_sync].set_index("metric")
        assert set(rows["n"]) == {3}
        metrics = {
            "makespan_s": [run["makespan_s"] for run in runs],
            "minibatches_per_s": [run["minibatches_per_s"] for run in runs],
            "staleness_mean": [run["staleness"]["mean"] for run in runs],
            "worker_utilisation": [run["utilisation"]["workers"] for run in runs],
            "server_utilisation": [run["utilisation"]["server"] for run in runs],
            "test_loss": [run["final"]["test_loss"] for run in runs],
        }
        assert list(rows.index) == list(metrics)
        losses = metrics["test_loss"]
        interval = stats.ttest_1samp(losses, 0.0).confidence_interval(0.95)
        found = rows.loc["test_loss"]
        assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
        half_width = (interval.high - interval.low) / 2
        assert f" {sum(losses) / 3:.4g} ± {half_width:.4g} │" in said.out


def test_a_single_seed_has_means_without_intervals(bowl: Path) -> None:
    said = asgd_lab("run", bowl, "--out", "out", "--jobs", "1", *INLINE)
    table = pd.read_csv("out/sweep.csv")
    assert table["low"].isna().all()
    assert table["high"].isna().all()
    assert set(table["n"]) == {1}
    assert set(table["metric"]) == {"staleness_mean", "test_loss"}, "this backend has no clock"
    assert "±" not in said.out
    assert not Path("out/sweep-differences.csv").exists()


def test_points_are_compared_seed_by_seed_which_tells_more_than_their_own_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A link that is a little slower: what a seed draws for the devices is far more than what the link costs.
    text = QUADRATIC.replace("{compute: {step_s: 0.01}}", "{compute: {distribution: lognormal, cv: 1.0, step_s: 0.01}}")
    path = written(tmp_path, monkeypatch, text + "sweep: {hardware.link.latency_s: [0.0, 0.0005]}\n")
    said = asgd_lab("run", path, "--out", "out", "--jobs", "1", "--seeds", "5")
    assert "minus hardware.link.latency_s=0.0, paired by seed" in said.out
    means, differences = (pd.read_csv(f"out/{name}.csv") for name in ("sweep", "sweep-differences"))
    assert list(differences.columns) == ["hardware.link.latency_s", "metric", "difference", "low", "high", "n"]
    assert list(differences["metric"]) == ["minibatches_per_s", "test_loss"]
    paired = differences.set_index("metric").loc["minibatches_per_s"]
    rates = means[means["metric"] == "minibatches_per_s"]
    assert paired["n"] == 5
    assert paired["difference"] == pytest.approx(rates["mean"].iloc[1] - rates["mean"].iloc[0])
    assert paired["high"] < 0.0, "slower, beyond doubt"
    assert rates["low"].iloc[0] < rates["high"].iloc[1], "which the intervals of the two do not tell"
    assert paired["high"] - paired["low"] < (rates["high"] - rates["low"]).min() / 2


def test_seeds_beside_a_swept_seed_are_refused(bowl: Path) -> None:
    bowl.write_text(QUADRATIC + "sweep:\n  workers: [1, 2]\n  seed: [1, 2]\n")
    said = asgd_lab("run", bowl, "--seeds", "2")
    assert said == Said(2, "", "scenario.yaml:11: sweep.seed: cannot stand beside --seeds; give one of them\n")


def test_a_swept_seed_is_a_replication_too(bowl: Path) -> None:
    bowl.write_text(QUADRATIC + "sweep: {seed: [1, 2], task.optimizer: [{name: SGD, lr: 0.1}, {name: SGD, lr: 0.2}]}\n")
    said = asgd_lab("run", bowl, "--out", "out", "--jobs", "1", *INLINE)
    table = pd.read_csv("out/sweep.csv")
    assert list(table["task.optimizer"].unique()) == ["SGD(lr=0.1)", "SGD(lr=0.2)"]
    assert set(table["n"]) == {2}
    assert "minus task.optimizer=SGD(lr=0.1), paired by seed" in said.out


def test_seeds_make_replications_of_a_scenario_without_a_sweep(bowl: Path) -> None:
    said = asgd_lab("run", bowl, "--out", "out", "--jobs", "1", *INLINE, "--seeds", "2", "--set", "sweep={}")
    assert sorted(path.name for path in Path("out").iterdir()) == ["seed=3", "seed=4", "sweep.csv", "sweep.json"]
    assert list(pd.read_csv("out/sweep.csv").columns) == ["metric", "mean", "low", "high", "n"]
    assert "│ bowl  │     2 │" in said.out


def test_every_point_has_a_folder_of_its_own_whatever_its_values_are(tmp_path: Path) -> None:
    """Also where letters of both cases are one, and where a text looks like two values."""
    path = tmp_path / "names.yaml"
    for number, swept in enumerate((
        'name: ["a", "a,description=b"], description: ["c", "b,description=c"]',
        'name: ["Bowl", "bowl", "BOWL"]',
        'name: ["e\\u0301", "\\u00e9", "\\u00c9"]',
        'description: ["..", "../../x", ".x", "x.", "con", "/"]',
        f'description: ["{"x" * 400}a", "{"x" * 400}b"]',
    )):  # fmt: skip
        path.write_text(QUADRATIC + f"sweep: {{{swept}}}\n")
        out, count = tmp_path / str(number), len(Document.read(path).points())
        made = sweep(path, out=out, jobs=1)
        files = {file: file.stat().st_mtime_ns for file in out.rglob("summary.json")}
        again = sweep(path, out=out, jobs=1, resume=True)
        assert {file: file.stat().st_mtime_ns for file in out.rglob("summary.json")} == files, "all were done already"
        assert len(made.names) == len(again.names) == len(files) == count
        names = [each.name.casefold() for each in out.iterdir() if each.is_dir()]
        assert len({*names}) == len(names) == count
    assert not (tmp_path / "x").exists()
