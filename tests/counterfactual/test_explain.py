"""Counterfactual replay: dose 1 gives the record's bits, dose 0 has no staleness, and the record stays as it is."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import asgd_lab as face
from asgd_lab.algorithms import ALGORITHMS, Link
from asgd_lab.backends.run import execute
from asgd_lab.counterfactual.explanation import Explanation
from asgd_lab.counterfactual.files import JSON, LOOKS, PARQUET
from asgd_lab.counterfactual.settings import Settings
from asgd_lab.counterfactual.study import explain
from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.protocol.rules import Rule, weighing
from asgd_lab.record import atomic_files
from tests.backends.scenarios import DIGITS, QUADRATIC, TIMING, run, scenario
from tests.cli.harness import asgd_lab
from tests.whole import sample

PLAIN = {**QUADRATIC, "optimizer": {"name": "SGD", "lr": 0.1}}
OUTSIDE = "tests.outside"
DC = [{"name": f"{OUTSIDE}.delay_compensated:DelayCompensated"}, {"name": "sgd", "lr": 0.02}]
APART = {"server": {"count": 3, "independent": True}, "compute": {"step_s": 0.001}}
RUNS: dict[str, dict[str, Any]] = {
    "asgd": {"algorithm": {"name": "asgd", "n_sync": 3, "rule": ["scale", {"name": "momentum", "beta": 0.5}]}},
    "reset": {"algorithm": {"name": "asgd", "n_sync": 2, "momentum_at_fetch": "reset"}},
    "uncoupled": {"algorithm": {"name": "asgd", "n_fetch": 4, "n_push": 3}},
    "rare pushes": {"algorithm": {"name": "asgd", "n_fetch": 2, "n_push": 5}},
    "gradients": {
        "algorithm": {"name": "asgd", "n_sync": 2, "push": "gradient", "rule": [{"name": "adagrad", "lr": 0.05}]}
    },
    "sgd": {"algorithm": {"name": "sgd"}, "workers": 1},
    "ssp": {"algorithm": {"name": "ssp", "n_sync": 2, "bound": 1}},
    "sync": {"algorithm": {"name": "sync_sgd", "n_sync": 2}},
    "downpour": {
        "algorithm": {"name": "downpour", "n_fetch": 3, "n_push": 5, "depth": 2, "momentum_at_fetch": "reset"}
    },
    "downpour, coupled": {"algorithm": {"name": "downpour", "n_sync": 2}},
    "ringmaster": {"algorithm": {"name": f"{OUTSIDE}.ringmaster:Ringmaster", "n_sync": 2, "limit": 1}},
    "stops": {"algorithm": {"name": f"{OUTSIDE}.ringmaster_stops:RingmasterStops", "n_sync": 4, "limit": 1}},
    "k-sync": {"algorithm": {"name": f"{OUTSIDE}.k_sync:KSync", "n_sync": 2, "k": 2, "rule": ["mean"]}},
    "fedbuff": {"algorithm": {"name": f"{OUTSIDE}.fedbuff:FedBuff", "n_sync": 2, "k": 3, "rule": ["add"]}},
    "delay-compensated": {"algorithm": {"name": "asgd", "n_sync": 1, "push": "gradient", "rule": DC}, "task": PLAIN},
    "top-k": {"algorithm": {"name": "asgd", "n_sync": 2, "codec": {"name": f"{OUTSIDE}.top_k:TopK", "share": 0.3}}},
    "dylu": {"algorithm": {"name": f"{OUTSIDE}.dylu:DyLU", "n_sync": 6}},
    "streaming": {"algorithm": {"name": f"{OUTSIDE}.streaming:Streaming", "n_sync": 3, "rule": ["mean"]}},
    "independent servers": {"algorithm": {"name": "asgd", "n_fetch": 3, "n_push": 2}, "hardware": APART},
    "crashes": {
        "algorithm": {"name": "asgd", "n_sync": 3},
        "faults": {"mean_time_between_failures_s": 0.02, "mean_time_to_repair_s": 0.005},
    },
    "versions' clock": {
        "algorithm": {"name": "asgd", "n_sync": 2},
        "task": {**QUADRATIC, "schedule": {"name": "cosine", "clock": "versions", "length": 40}},
    },
}  # fmt: skip
BITS = Settings(doses=(1.0, 0.0), seeds=1)


def staleness(found: Explanation) -> dict[float, float]:
    return dict(zip(found.frame["dose"], found.frame["staleness"], strict=True))


@pytest.mark.parametrize("name", sample(RUNS, 6))
def test_dose_1_gives_the_bits_of_a_simulated_run_and_dose_0_has_least_staleness(tmp_path: Path, name: str) -> None:
    """A run whose bits are others is refused with an error."""
    stated = scenario(**{"backend": "sim", "workers": 3, "budget": {"minibatches": 90}, **RUNS[name]})
    summary = execute(stated, tmp_path / "run")
    found = explain(tmp_path / "run", BITS)
    realised = staleness(found)
    assert realised[1.0] == pytest.approx(summary["staleness"]["mean"])
    assert realised[0.0] <= realised[1.0]
    assert name in FLOOR or realised[0.0] == 0
    assert any("keeps a mean staleness" in line for line in found.lines) is (realised[0.0] > 0)
    assert found.facts.dropped == summary["dropped"]


def test_every_registered_algorithm_that_has_an_order_is_among_the_runs() -> None:
    """The one without is refused below."""
    assert {parts["algorithm"]["name"] for parts in RUNS.values()} >= {*ALGORITHMS.names} - {"hogwild"}


FLOOR = ("uncoupled", "rare pushes", "downpour", "independent servers")  # where one fetch serves several pushes
REAL = ("asgd", "uncoupled", "downpour", "fedbuff", "independent servers")


@pytest.mark.parametrize("name", sample(REAL, 1))
def test_dose_1_gives_the_bits_of_a_real_run(tmp_path: Path, name: str) -> None:
    parts = {"workers": 3, "budget": {"minibatches": 90}, **RUNS[name]}
    backend = "process" if name == "independent servers" else {"name": "process", "digest_every_updates": 5}
    summary = execute(scenario(**{**parts, "backend": backend}), tmp_path / "run")
    found = explain(tmp_path / "run", BITS)
    assert staleness(found)[1.0] == pytest.approx(summary["staleness"]["mean"])
    assert found.facts.compares_final


def test_dose_1_gives_the_bits_of_a_real_run_with_a_killed_worker(tmp_path: Path) -> None:
    faults = {"schedule": [{"name": "kill", "worker": 1, "at_s": 0.05, "repair_s": 0.0}]}
    backend = {"name": "process", "device": "emulated"}
    hardware = {"compute": {"step_s": 0.004}}
    stated = scenario(workers=2, budget={"minibatches": 600}, faults=faults, backend=backend, hardware=hardware)
    summary = execute(stated, tmp_path / "run")
    assert summary["faults"]["restarts"] == 1
    found = explain(tmp_path / "run", BITS)
    assert staleness(found)[0.0] == 0


def test_dose_1_gives_the_bits_of_a_network_and_doses_lie_between(tmp_path: Path) -> None:
    stated = scenario(task=DIGITS, backend="inline", workers=4, budget={"minibatches": 80})
    execute(stated, tmp_path / "run")
    found = explain(tmp_path / "run", Settings(doses=(1.0, 0.5, 0.0), seeds=2, metric="test_error"))
    realised = found.frame.groupby("dose")["staleness"].mean()
    assert realised.is_monotonic_increasing
    assert realised[0.5] == pytest.approx(realised[1.0] / 2, rel=0.2)
    assert found.metric == "test_error"
    assert {*found.frame["seed"]} == {0, 1}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recorded") / "run"
    run(out, backend="sim", workers=3, budget={"minibatches": 60})
    return out


def test_the_command_writes_beside_the_run_and_leaves_its_files_alone(recorded: Path) -> None:
    def hashes() -> dict[str, str]:
        files = [path for path in recorded.rglob("*") if path.is_file() and not path.name.startswith("explain")]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = hashes()
    said = asgd_lab("explain", recorded, "--seeds", "3", "--rates", "0.5,1", "--doses", "1,0")
    assert said.status == 0, said.err
    words = " ".join(said.out.split())
    assert "direct effect of staleness at fixed order and fixed learning rate, rate 0.5:" in words
    assert "with each dose at its own best rate" in words
    assert "rules see the recorded staleness" in words
    assert hashes() == before
    summary, frame = atomic_files.read_json(recorded / JSON), pd.read_parquet(recorded / PARQUET)
    assert len(frame) == 2 * 2 * 3
    assert [each["n"] for each in summary["effects"]] == [3, 3, 3]
    assert asgd_lab("replay", recorded).status == 0


def test_python_has_a_frame_and_a_plot_and_writes_only_where_it_is_told(recorded: Path, tmp_path: Path) -> None:
    found = face.explain(face.Run.open(recorded), seeds=2, doses=[1, 0], out=tmp_path / "there")
    assert {path.name for path in (tmp_path / "there").iterdir()} == {JSON, LOOKS, PARQUET}
    assert found.plot().axes[0].get_xlabel() == "realised mean staleness (versions)"
    (effect,) = found.effects
    values = found.frame.pivot(index="seed", columns="dose", values="test_loss")
    assert effect.estimate.mean == pytest.approx((values[1.0] - values[0.0]).mean())


def test_rules_see_the_staleness_that_the_key_names(tmp_path: Path) -> None:
    """At dose 0 weights by the counterfactual staleness change nothing; those by the recorded one do."""
    algorithm = {"name": "asgd", "n_sync": 1, "rule": [{"name": f"{__name__}:ByStaleness"}, "scale"]}
    execute(scenario(backend="sim", workers=3, algorithm=algorithm, task=PLAIN), tmp_path / "weighed")
    execute(
        scenario(backend="sim", workers=3, algorithm={**algorithm, "rule": ["scale"]}, task=PLAIN), tmp_path / "not"
    )

    def losses(name: str, see: str) -> float:
        found = explain(tmp_path / name, Settings(doses=(0.0,), seeds=1, rules_see=see))
        return found.values("staleness", 0.0, 1.0)[0]

    assert losses("weighed", "counterfactual") == losses("not", "recorded")
    assert losses("weighed", "recorded") != losses("not", "recorded")


class ByStaleness(Link):
    """Weighs each push by 1 / (1 + staleness)."""

    def build(self, workers: int) -> Rule:
        """One link on each push."""
        return weighing("by staleness", lambda context: 1.0 / (1 + context.staleness))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "timing": ({"task": TIMING, "backend": "sim", "hardware": {}}, "learns nothing"),
    "shared memory": ({"algorithm": {"name": "hogwild", "n_sync": 2}}, "whose updates have no order"),
    "a stream": (
        {"task": {"name": "own", "task": "tests.tasks.own_classes:Streamed", "optimizer": {"name": "SGD", "lr": 0.05}}},
        "reads a stream",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_run_without_an_order_or_a_loss_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    parts, said = REFUSED[name]
    run(tmp_path / "run", **parts)
    found = asgd_lab("explain", tmp_path / "run")
    assert found.status == 2
    assert said in found.err
    assert len(found.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--doses", "1,2"), "doses: must be different numbers from 0 to 1"),
        (("--doses", "a"), "--doses: must be numbers"),
        (("--rates", "0"), "rates: must be different numbers above 0"),
        (("--causes", "noise"), "there is no cause 'noise'; allowed: staleness, drift"),
        (("--metric", "test_error", "--seeds", "1"), "metric: there is no 'test_error'; the run has test_loss"),
    ],
)
def test_a_wrong_option_is_one_line(recorded: Path, options: tuple[str, ...], said: str) -> None:
    found = asgd_lab("explain", recorded, *options)
    assert found.status == 2
    assert said in found.err


def test_a_record_of_other_parameters_is_not_explained(tmp_path: Path, recorded: Path) -> None:
    shutil.copytree(recorded, tmp_path / "run")
    path = tmp_path / "run" / "summary.json"
    atomic_files.write_json(path, {**atomic_files.read_json(path), "params_sha256": "0"})
    with pytest.raises((ScenarioError, RunFailed), match=r"other final parameters|damaged"):
        explain(tmp_path / "run", BITS)
