"""Runs that cannot come to their end say so, in one line that names who waits for what; none goes on for ever."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asgd_lab.backends.run import execute
from asgd_lab.backends.sim.accounts import Meter
from asgd_lab.backends.sim.clock import Clock, Timer
from asgd_lab.backends.sim.network import UP
from asgd_lab.backends.sim.sharing import Class, Sharing
from asgd_lab.backends.sim.simulation import Simulation
from asgd_lab.errors import RunFailed
from asgd_lab.protocol.messages import Answer
from asgd_lab.protocol.server import Server
from asgd_lab.record import tables
from asgd_lab.record.run import read_summary
from tests.backends.virtual import TIMING, attempt, scenario, simulate

FAULTS = {"mean_time_between_failures_s": 5.0, "mean_time_to_repair_s": 3.0, "detect_s": 1.0}


def deaf(method: str, *, to: set[int] | None = None, after: int = 0) -> Callable[[Simulation], None]:
    """The server takes no notice of some requests: those of `to`, or all, when it has had `after` of the kind."""

    def arrange(simulation: Simulation) -> None:
        heard = getattr(simulation.server, method)
        count = 0

        def answer(_: Server, request: Any, *more: Any) -> list[Answer]:
            nonlocal count
            count += 1
            worker = request if isinstance(request, int) else request.worker
            if count > after and (to is None or worker in to):
                return []
            grants: list[Answer] = heard(request, *more)
            return grants

        simulation.server.__class__ = type("Deaf", (Server,), {"__slots__": (), method: answer})

    return arrange


def failure(
    arrange: Callable[[Simulation], object],
    budget: dict[str, Any] | None = None,
    algorithm: dict[str, Any] | None = None,
    **more: Any,
) -> str:
    """The one line of a run that fails."""
    hardware = more.pop("hardware", {})
    stated = scenario(TIMING | {"size_bytes": 100}, algorithm, 3, budget or {"updates": 20}, hardware, **more)
    outcome = attempt(stated, arrange=arrange).outcome
    assert outcome.status == "failed"
    assert outcome.failure is not None
    assert "\n" not in outcome.failure
    return outcome.failure


@pytest.mark.parametrize(
    "budget", [{"updates": 20}, {"minibatches": 20}, {"seconds": 50.0}], ids=lambda b: next(iter(b))
)
@pytest.mark.parametrize("method", ["on_fetch", "on_push"])
def test_a_server_that_answers_nobody_any_more_is_a_deadlock(method: str, budget: dict[str, Any]) -> None:
    message = failure(deaf(method, after=4), budget)
    assert message.startswith("deadlock at ")
    assert message.endswith("workers 0, 1, 2 wait for a grant that never comes")


@pytest.mark.parametrize("budget", [{"updates": 200}, {"minibatches": 200}, {"seconds": 500.0}], ids=str)
@pytest.mark.parametrize("method", ["on_fetch", "on_push"])
@pytest.mark.parametrize("repair_s", [0.5, 50.0])
def test_so_it_is_while_workers_crash_and_come_back(method: str, budget: dict[str, Any], repair_s: float) -> None:
    """Whoever comes back asks again, and is not heard either."""
    message = failure(deaf(method, after=4), budget, faults=FAULTS | {"mean_time_to_repair_s": repair_s})
    assert message.startswith("deadlock at ")
    assert "wait for a grant that never comes" in message


@pytest.mark.parametrize("name", ["sync_sgd", "ssp"])
def test_one_worker_that_is_not_heard_stops_all_who_wait_for_it(name: str) -> None:
    algorithm = {"name": name, "n_sync": 1, **({"bound": 1} if name == "ssp" else {})}
    message = failure(deaf("on_push", to={1}, after=4), algorithm=algorithm)
    assert "workers 0, 1, 2 wait for a grant that never comes" in message


@pytest.mark.parametrize("budget", [{"updates": 20}, {"seconds": 9.5}], ids=lambda b: next(iter(b)))
def test_a_worker_that_is_not_heard_while_others_do_all_the_work_is_starved(budget: dict[str, Any]) -> None:
    """Nobody waits for it, so that the run comes to its end: it has failed all the same."""
    message = failure(deaf("on_fetch", to={1}, after=4), budget)
    assert message.startswith("starvation until ")
    assert message.endswith("workers 1 wait for a grant that never comes")


def test_a_server_that_serves_nobody_is_a_deadlock() -> None:
    def arrange(simulation: Simulation) -> None:
        simulation.machine.queues[0].submit = lambda request: None  # type: ignore[method-assign]

    message = failure(arrange, hardware={"server": {"push_s": 0.1, "fetch_s": 0.1}})
    assert message.endswith("workers 0, 1, 2 wait for the server, which does not answer")


class Lossy(Sharing):
    """A link that loses all that is sent."""

    def take(self, one: Class, amount: float, done: Callable[[], object]) -> list[Any]:
        return []


def test_a_transfer_that_never_ends_is_a_deadlock() -> None:
    def arrange(simulation: Simulation) -> None:
        for servers in simulation.machine.network.routes[UP]:
            servers[0].sharing = Lossy(simulation.clock)

    message = failure(arrange, hardware={"link": {"up_bytes_per_s": 1e3, "shared": True}})
    assert message.endswith("workers 0, 1, 2 wait for a transfer that never ends")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_in_the_middle_of_an_event_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Where counters are half read, say: what is said of the run still adds up."""
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.default_int_handler)
    sampled, count = Meter.sample, 0

    def half(meter: Meter) -> None:
        nonlocal count
        count += 1
        if count == 4:
            signal.raise_signal(number)
        sampled(meter)

    monkeypatch.setattr(Meter, "sample", half)
    try:
        summary = execute(scenario(TIMING, workers=2, budget={"updates": 10**9}, hardware={}), tmp_path / "run")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert summary["status"] == "interrupted"
    assert summary["updates"] > 0
    (lasts,) = {len(each["over_time"]["present"]) for each in summary["resources"]}
    assert lasts > 0
    rows = tables.read(tmp_path / "run", "effects")
    assert (rows["end_s"] <= summary["makespan_s"]).all()


def test_a_second_interruption_does_not_wait() -> None:
    clock = Clock()

    def stuck() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it went on")

    Timer(clock, 1, stuck)
    with pytest.raises(KeyboardInterrupt), clock.interruptible():
        clock.run()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_failed_run_is_kept_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "on_fetch", lambda self, worker, ahead=False: [])
    with pytest.raises(RunFailed, match="workers 0, 1 wait for a grant that never comes"):
        execute(scenario(workers=2, budget={"updates": 3}), tmp_path / "run")
    summary = read_summary(tmp_path / "run")
    assert summary["status"] == "failed"
    assert "workers 0, 1 wait" in summary["failure"]


@pytest.mark.parametrize("seconds", [10.0, 0.5])
def test_a_run_that_is_out_of_time_while_all_are_down_or_undetected_has_not_failed(seconds: float) -> None:
    """Lock-step waits for the detection, not for ever."""
    stated = scenario(
        algorithm={"name": "sync_sgd", "n_sync": 1}, workers=2, budget={"seconds": seconds}, hardware={},
        faults={"mean_time_between_failures_s": 0.7, "mean_time_to_repair_s": 1000.0, "detect_s": 500.0}, seed=3,
    )  # fmt: skip
    assert simulate(stated).outcome.makespan_ns == seconds * 1e9


def test_rounds_that_never_end_before_the_next_crash_are_given_up() -> None:
    """Rounds of 1,000 s with a crash every second: one in e^1000 would succeed."""
    stated = scenario(
        TIMING | {"step_s": 1000.0}, workers=2, budget={"updates": 1}, hardware={},
        faults={"mean_time_between_failures_s": 1.0, "mean_time_to_repair_s": 1.0}, seed=5,
    )  # fmt: skip
    outcome = attempt(stated).outcome
    assert outcome.status == "failed"
    assert outcome.failure is not None
    assert "workers are not up for long enough for a round" in outcome.failure


def test_many_crashes_in_a_row_are_no_deadlock_while_somebody_works() -> None:
    """Rounds of 10 s with a crash every 4 s: one in twelve succeeds, and the run comes to its end."""
    stated = scenario(
        TIMING | {"step_s": 10.0}, workers=2, budget={"updates": 12}, hardware={},
        faults={"mean_time_between_failures_s": 4.0, "mean_time_to_repair_s": 0.1}, seed=5,
    )  # fmt: skip
    run = simulate(stated)
    assert run.outcome.facts["faults"]["crashes"] > 60


def test_a_run_that_outlives_the_clock_fails_in_one_line() -> None:
    """Minibatches of 31 years each, of which 64-bit nanoseconds hold a few."""
    run = attempt(scenario(TIMING | {"step_s": 1e9}, workers=1, budget={"minibatches": 50}, hardware={}))
    assert run.outcome.status == "failed"
    assert run.outcome.failure == "worker 0 would train beyond 4.61e+09 s of virtual time, where clocks end"
    assert run.outcome.updates == 4
