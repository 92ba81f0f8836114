"""What a simulation says of itself: the sim backend's part of summary.json, and who waited when nothing went on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from asgd_lab.backends.sim.accounts import COMPUTE, DOWN, HEADINGS
from asgd_lab.backends.sim.exchange import FAR

if TYPE_CHECKING:
    from asgd_lab.backends.sim.simulation import Simulation
    from asgd_lab.backends.sim.worker import SimWorker


def facts(sim: Simulation) -> dict[str, Any]:
    """Where each worker's time went, links and servers over time, faults; and the statistics' busy times."""
    accounts, end = sim.accounts, sim.end_ns
    for worker, account in enumerate(accounts):
        sim.statistics.worker_busy(worker, account.spent_ns[COMPUTE])
    sim.statistics.server_busy(sum(queue.busy_ns for queue in sim.queues) // len(sim.queues))
    totals = [sum(account.spent_ns[index] for account in accounts) for index in range(len(HEADINGS))]
    workers = len(accounts)
    found: dict[str, Any] = {
        "time": {
            "mean": {name: total / workers * 1e-9 for name, total in zip(HEADINGS, totals, strict=True)},
            "per_worker": [
                {name: spent * 1e-9 for name, spent in zip(HEADINGS, account.spent_ns, strict=True)}
                for account in accounts
            ],
        },
        "resources": sim.machine.meters.summary(),
    }
    found |= sim.numerics.facts
    if sim.shards.staleness:
        found["staleness_per_shard"] = [
            {"mean": sum(k * n for k, n in one.items()) / max(1, sum(one.values())), "max": max(one, default=0)}
            for one in sim.shards.staleness
        ]
    if sim.faults is not None:
        down = totals[DOWN]
        found["faults"] = {
            "crashes": sim.faults.crashes,
            "lost_minibatches": sim.faults.lost_minibatches,
            "availability": 1 - down / (workers * end) if end else 1.0,
        }
    return found


def deadlock(waiting: Sequence[SimWorker], now: int) -> str:
    """One line: who waits, for what, since when."""
    whats = sorted({_what(worker) for worker in waiting})
    return f"deadlock at {now * 1e-9:.6g} s: workers {_listed(waiting)} wait for {' or '.join(whats) or 'nothing'}"


def starvation(waiting: Sequence[SimWorker], now: int) -> str | None:
    """One line, if the run has come to its end past somebody whose request the server has had and not answered."""
    starved = [worker for worker in waiting if worker.awaits is not None and worker.awaits.collected]
    if not starved:
        return None
    return f"starvation until {now * 1e-9:.6g} s: workers {_listed(starved)} wait for a grant that never comes"


def _listed(workers: Sequence[SimWorker]) -> str:
    return (
        ", ".join(map(str, [worker.number for worker in workers][:20])) + (", ..." if len(workers) > 20 else "")
        or "none"
    )


def _what(worker: SimWorker) -> str:
    exchange = worker.awaits
    if exchange is None:
        return "nothing"
    if exchange.arrived == FAR:
        return "a transfer that never ends"
    return "the server, which does not answer" if exchange.served == FAR else "a grant that never comes"
