"""The facts of a gate of one's own, as a user hears of them before a run: on every backend, in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import asgd_lab
from asgd_lab import Algorithm
from asgd_lab import extending as lab
from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.protocol import gates
from asgd_lab.request import Request
from tests.api.scenarios import BACKENDS, BOWL, on
from tests.benchmarks.wrapper import PassingOn
from tests.whole import sample


class Wakes(lab.Gate):
    def stops(self, server: lab.View) -> Iterable[int]:
        return [each for each in server.owing if server.now_ns > server.member(each).lease_ns + 10**9]

    def wake_ns(self, server: lab.View) -> int | None:
        return min((server.member(each).lease_ns + 10**9 + 1 for each in server.owing), default=None)


class WakesLate(lab.Gate):
    """Asks to be woken after more versions than a trial makes."""

    def wake_ns(self, server: lab.View) -> int | None:
        return 10**9 if server.version > 100 else None


class HoldsBackLate(lab.Gate):
    """Holds a fetch back after more pushes than a trial has, and does not say so."""

    def may_fetch(self, worker: int, server: lab.View) -> bool:
        return server.member(worker).clock - server.slowest <= 50


class StatesThatItHoldsNothingBack(HoldsBackLate):
    holds_back = False


class Forwards(PassingOn):
    """Asks another gate everything, and has its facts."""

    holds_back = property(lambda self: self.other.holds_back)  # type: ignore[assignment]
    collects = property(lambda self: self.other.collects)  # type: ignore[assignment]
    rounds = property(lambda self: self.other.rounds)  # type: ignore[assignment]


class ReadsTimes(lab.Gate):
    needs_clock = True

    def lease(self, worker: int, server: lab.View) -> int:
        return 1 + int(server.member(worker).speed > 50)


class Collects(lab.Gate):
    collects = True

    def on_push(self, push: lab.PushRequest, server: lab.View) -> lab.Verdict:
        return lab.HOLD

    def complete(self, server: lab.View) -> bool:
        return len(server.kept) == 2


class SaysNotThatItCollects(Collects):
    collects = False


class Keeps(Collects):
    most: int
    keeps = 2

    def on_push(self, push: lab.PushRequest, server: lab.View) -> lab.Verdict:
        return lab.KEEP

    def complete(self, server: lab.View) -> bool:
        return len(server.kept) == self.most


class KeepsAndSaysNotThatItCollects(Keeps):
    most: int = 2
    collects = False


class HoldsBack(lab.Gate):
    holds_back = True

    def may_fetch(self, worker: int, server: lab.View) -> bool:
        return server.member(worker).clock <= server.slowest


class SaysNotThatItHoldsBack(HoldsBack):
    holds_back = False


class Rounds(lab.LockStep):
    pass


class RoundsWithoutWaiting(lab.LockStep):
    holds_back = False


class Drops(lab.Gate):
    def on_push(self, push: lab.PushRequest, server: lab.View) -> lab.Verdict:
        return lab.drop()


class OddFact(lab.Gate):
    collects = "yes"  # type: ignore[assignment]


class NegativeFact(lab.Gate):
    collects = True
    keeps = -1


def ahead(replica: lab.Replica) -> lab.Program:
    """Asks for the next lease while it trains."""
    fetch, train, push = lab.Fetch(replica), lab.Train(replica), lab.PushEffect(replica)
    yield fetch
    while replica.granted:
        replica.adopt()
        yield lab.Start(fetch)
        yield train
        replica.measure()
        yield push
        yield lab.Wait(fetch)


def in_parts(gate: lab.Gate) -> type[lab.Ruled]:
    class InParts(lab.Ruled):
        parts: int = 2
        collects = gate.collects

        def sentence(self, rule: lab.Rule) -> lab.Algorithm:
            return replace(lab.blocking(self, gate, rule), parts=self.parts)

    return InParts


CLOCK = "needs a clock, which backend inline does not have: its gate asks to be woken; use sim or process"
ZERO = "reads times or speeds, and backend inline has no clock: all are 0"
HOLDS = "has a may_fetch, and holds_back is False: a run fails at the first fetch that it holds back"
FINE = ""
# The algorithm; what is refused on every backend, or FINE; the same on inline alone; the warning on inline, on others.
FACTS: dict[str, tuple[Callable[[], Any], str, str, str, str]] = {
    "wake_ns": (lambda: Algorithm(gate=Wakes), FINE, CLOCK, FINE, FINE),
    "wake_ns late": (lambda: Algorithm(gate=WakesLate), *[FINE] * 4),
    "another gate's": (lambda: Algorithm(gate=Forwards(gates.bounded_staleness(1))), *[FINE] * 4),
    "another gate's wake_ns": (lambda: Algorithm(gate=Forwards(Wakes())), FINE, CLOCK, FINE, FINE),
    "another gate's rounds": (lambda: Algorithm(gate=Forwards(gates.lock_step())), *[FINE] * 4),
    "methods alone": (lambda: Algorithm(gate=PassingOn(lab.Gate())), FINE, FINE, HOLDS, HOLDS),
    "holds_back late, and denied": (lambda: Algorithm(gate=StatesThatItHoldsNothingBack), FINE, FINE, HOLDS, HOLDS),
    "holds_back late": (lambda: Algorithm(gate=HoldsBackLate), FINE, FINE, HOLDS, HOLDS),
    "needs_clock": (lambda: Algorithm(gate=ReadsTimes), FINE, FINE, ZERO, FINE),
    "collects": (lambda: Algorithm(gate=Collects), FINE, FINE, FINE, FINE),
    "collects unsaid": (lambda: Algorithm(gate=SaysNotThatItCollects), "must say: collects = True", *[FINE] * 3),
    "keeps": (lambda: Algorithm(gate=Keeps(2)), FINE, FINE, FINE, FINE),
    "keeps more": (lambda: Algorithm(gate=Keeps(3)), "keeps 3 pushes, and says that it keeps 2 at most", *[FINE] * 3),
    "keeps alone": (lambda: Algorithm(gate=KeepsAndSaysNotThatItCollects), "must say: collects = True", *[FINE] * 3),
    "holds_back": (lambda: Algorithm(gate=HoldsBack), FINE, FINE, FINE, FINE),
    "holds_back unsaid": (lambda: Algorithm(gate=SaysNotThatItHoldsBack), "must say: holds_back = True", *[FINE] * 3),
    "holds_back and ahead": (lambda: Algorithm(gate=HoldsBack, program=ahead), "fetches ahead, and this gate holds",
                             *[FINE] * 3),
    "rounds": (lambda: Algorithm(gate=Rounds), FINE, FINE, FINE, FINE),
    "rounds without waiting": (lambda: Algorithm(gate=RoundsWithoutWaiting), "must say: holds_back = True",
                               *[FINE] * 3),
    "rounds and ahead": (lambda: Algorithm(gate=Rounds, program=ahead), "fetches ahead, and this gate holds",
                         *[FINE] * 3),
    "rounds in parts": (lambda: {"name": in_parts(gates.lock_step()), "n_sync": 2}, "rounds cannot stand beside parts",
                        *[FINE] * 3),
    "drops all": (lambda: Algorithm(gate=Drops), FINE, FINE, *["of a trial; a run fails after 10,000 on end"] * 2),
    "a word for a fact": (lambda: Algorithm(gate=OddFact), "must be True or False; got 'yes'", *[FINE] * 3),
    "a negative fact": (lambda: Algorithm(gate=NegativeFact), "must be a whole number, 0 at least; got -1",
                        *[FINE] * 3),
}  # fmt: skip


CASES = [(fact, backend) for fact in FACTS for backend in BACKENDS]
FEW = [
    ("wake_ns", "inline"),
    ("another gate's", "inline"),
    ("methods alone", "inline"),
    ("holds_back late", "sim"),
    ("needs_clock", "inline"),
    ("drops all", "process"),
]


@pytest.mark.parametrize(("fact", "backend"), [*FEW, *sample([each for each in CASES if each not in FEW], 9)])
def test_each_fact_of_a_gate_is_told_before_a_run_in_one_line(fact: str, backend: str) -> None:
    algorithm, refused, on_inline, warned_inline, warned = FACTS[fact]
    said = refused or (on_inline if backend == "inline" else FINE)
    stated = {**on(backend, BOWL), "algorithm": algorithm()}
    if said:
        with pytest.raises(ScenarioError) as caught:
            Request.of(stated).check()
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
        assert 'scenario["algorithm"]' in str(caught.value)
        return
    request = Request.of(stated)
    request.check()
    expected = warned_inline if backend == "inline" else warned
    found = [line for line in request.warnings() if line.startswith("algorithm")]
    assert [expected in line for line in found] == ([True] if expected else []), found


def test_a_gate_that_asks_to_be_woken_only_later_than_its_trial_fails_a_run_without_a_clock(tmp_path: Path) -> None:
    stated = {**on("inline", BOWL), "algorithm": Algorithm(gate=WakesLate), "budget": {"minibatches": 400}}
    with pytest.raises(RunFailed, match="the gate asks to be woken, and a run without a clock cannot do so"):
        asgd_lab.run(stated, out=tmp_path / "run")


def test_a_gate_that_asks_a_built_in_one_everything_runs_without_a_clock(tmp_path: Path) -> None:
    stated = {**on("inline", BOWL), "algorithm": Algorithm(gate=PassingOn(lab.Gate()))}
    assert asgd_lab.run(stated, out=tmp_path / "run").summary["status"] == "done"
