"""`asgd_lab.Algorithm`: a program, a gate and a rule of this process, and instances of configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import asgd_lab
from asgd_lab import extending as lab
from asgd_lab.algorithms import Asgd
from asgd_lab.algorithms.rules import Momentum, Scale
from asgd_lab.protocol import rules

from ..whole import sample
from .cells import executed
from .scenarios import BOWL, on


class FirstK(lab.Gate):
    k: int
    collects = True

    def on_push(self, push: lab.PushRequest, server: lab.View) -> lab.Verdict:
        return lab.HOLD if push.base == server.version else lab.drop(lab.Reason.LATE)

    def complete(self, server: lab.View) -> bool:
        return len(server.kept) >= min(self.k, len(server.members))


def halves(replica: lab.Replica) -> lab.Program:
    """Two pushes of each lease."""
    fetch, train, push = lab.Fetch(replica), lab.Train(replica), lab.PushEffect(replica)
    while True:
        yield fetch
        if not replica.granted:
            return
        replica.adopt()
        for part in (2, 1):
            if replica.granted:
                replica.steps = max(1, replica.granted // part)
                yield train
                replica.measure()
                yield push


RULE = rules.chain(rules.scale(0.5), rules.momentum(0.9))
SCALED = [Scale(name="scale"), Momentum(name="momentum", beta=0.5)]
LISTED = [{"name": "scale", "factor": 0.5}, {"name": "momentum", "beta": 0.9}]


def algorithms() -> dict[str, tuple[Any, Any]]:
    """Algorithms, each with a plain one of the same bits; None if there is none."""
    sign = executed()["Sign"]
    return {
        "nothing stated": (asgd_lab.Algorithm(n_sync=2), {"name": "asgd", "n_sync": 2}),
        "a rule": (asgd_lab.Algorithm(rule=RULE, n_sync=2), {"name": "asgd", "n_sync": 2, "rule": LISTED}),
        "a list of rules": (
            asgd_lab.Algorithm(rule=["scale", rules.momentum(0.5), sign(name="sign", lr=0.1)], n_sync=2),
            Asgd(name="asgd", n_sync=2, rule=[*SCALED, sign(name="x", lr=0.1)]),
        ),
        "a class of a gate": (asgd_lab.Algorithm(gate=lab.LockStep, n_sync=2), {"name": "sync_sgd", "n_sync": 2}),
        "a gate": (asgd_lab.Algorithm(gate=FirstK(k=1), n_sync=2, push="delta"), None),
        "a program": (asgd_lab.Algorithm(program=halves, n_sync=4), {"name": "asgd", "n_fetch": 4, "n_push": 2}),
        "an instance": (Asgd(name="asgd", n_sync=2), {"name": "asgd", "n_sync": 2}),
    }  # fmt: skip


@pytest.mark.parametrize("case", sample(algorithms(), 5))
def test_an_algorithm_of_objects_has_the_bits_of_the_one_with_keys(tmp_path: Path, case: str) -> None:
    made, keys = algorithms()[case]
    run = asgd_lab.run(on("inline"), {"algorithm": made}, out=tmp_path / "made")
    assert run.replay().same_bits
    if keys is not None:
        plain = asgd_lab.run(on("inline"), {"algorithm": keys}, out=tmp_path / "plain")
        assert run.summary["params_sha256"] == plain.summary["params_sha256"]


def test_an_algorithm_of_objects_runs_in_processes_and_its_run_repeats(tmp_path: Path) -> None:
    made = asgd_lab.Algorithm(program=halves, gate=FirstK(k=2), rule=rules.mean(), n_sync=4)
    run = asgd_lab.run({**on("process"), "algorithm": made}, out=tmp_path / "run")
    assert run.summary["minibatches"] >= 40
    assert "algorithm:\n  name: live:halves-" in (tmp_path / "run" / "scenario.yaml").read_text()
    assert run.replay().same_bits


def test_what_an_algorithm_cannot_be_made_of_is_one_line() -> None:
    class Bounded(lab.Gate):
        most: int

    for wrong in ({"gate": "ssp"}, {"gate": Bounded}, {"gate": int}, {"program": 3}):
        with pytest.raises(asgd_lab.ScenarioError, match=f"^{next(iter(wrong))}: ") as refused:
            asgd_lab.Algorithm(n_sync=2, **wrong)  # type: ignore[arg-type]
        assert len(str(refused.value).splitlines()) == 1
    for rule in ("scale", {"name": "scale"}, rules.scale(0.5)):
        assert len(asgd_lab.Algorithm(rule=rule)["rule"]) == 1


def test_what_an_algorithm_of_objects_does_wrong_is_one_line() -> None:
    def silent(replica: lab.Replica) -> lab.Program:
        raise KeyError("nothing")
        yield lab.Fetch(replica)

    for wrong in (
        asgd_lab.Algorithm(program=silent, n_sync=2),
        asgd_lab.Algorithm(program=halves, n_sync=0),
        asgd_lab.Algorithm(n_sync=2, momentum=0.9),
        asgd_lab.Algorithm(rule=rules.sgd(0.1), n_sync=2),
    ):
        with pytest.raises(asgd_lab.ScenarioError, match=r'^scenario\["algorithm"\]') as refused:
            asgd_lab.run({**BOWL, "algorithm": wrong})
        assert "\n" not in str(refused.value)
