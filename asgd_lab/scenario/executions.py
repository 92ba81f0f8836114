"""The backends as a scenario knows them: facts, refusals, and the place of their code.

A scenario is read without a backend's code, which imports torch: `runs` names it. No code tests a backend's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from asgd_lab.choices import Registry
from asgd_lab.scenario.hardware import Hardware
from asgd_lab.scenario.running import ServerDown, Stop

Contradictions = Iterator[tuple[str, str]]


class Execution:
    """A backend. Each subclass names its function, states facts, and adds refusals of its own."""

    called: ClassVar[str]
    """The backend's name, if it is one of this package's."""
    runs: ClassVar[str | Callable[..., Any]]
    """Its function (scenario, record, watch) -> Outcome, as package.module:name, or itself as a static method; see
    `backends.outcome`."""
    checks: ClassVar[str | Callable[[Any], None] | None] = None
    """Its function that raises a `ScenarioError` if a scenario cannot run on this machine; None: all can."""
    measured: ClassVar[bool] = False
    """Whether it measures times of this machine, where nothing else should run meanwhile."""
    apart: ClassVar[bool] = False
    """Whether each worker is a process of its own."""
    logged: ClassVar[bool] = False
    """Whether a run is replayed from its event log; else it is a function of the scenario, and is run again."""
    simulated: ClassVar[bool] = False
    """Whether its clock is virtual: times come from `hardware` alone, and a minibatch may stand for many."""
    has_clock: ClassVar[bool] = True
    evaluates: ClassVar[bool] = True
    """Whether it evaluates during the run, and not only at the end."""
    loses_workers: ClassVar[bool] = True
    saves: ClassVar[bool] = False
    """Whether it saves checkpoints and hashes of versions."""
    batches: ClassVar[bool] = False
    """Whether it may compute several workers' rounds together."""
    measures_distances: ClassVar[bool] = True

    def __init__(self, name: str) -> None:
        self.name = name

    def refuses(self, scenario: Any) -> Contradictions:
        """Keys of the scenario that this backend cannot carry out: a dotted key, and the reason."""
        backend, task = scenario.backend, scenario.task
        for key in ("checkpoint", "digest_every_updates"):
            if not self.saves and getattr(backend, key) is not None:
                yield f"backend.{key}", f"cannot stand beside backend {self.name}; only process needs it; remove it"
        if not self.batches and backend.numerics != "sequential":
            message = f"must be sequential with backend {self.name}, whose workers compute by themselves"
            yield "backend.numerics", message
        if not self.has_clock and backend.device == "emulated":
            message = f"must be cpu or cuda with backend {self.name}, which has no clock; got emulated"
            yield "backend.device", message
        if not self.has_clock and scenario.budget.seconds is not None:
            message = f"needs a clock, and backend {self.name} has none; use minibatches or updates"
            yield "budget.seconds", message
        if not self.evaluates and scenario.evaluate is not None and task.learns:
            message = f"cannot stand beside backend {self.name}, which evaluates at the end alone; remove it"
            yield "evaluate", message
        if not self.loses_workers and scenario.faults is not None:
            message = f"cannot stand beside backend {self.name}: only sim and process have workers that die; remove it"
            yield "faults", message
        if not self.measures_distances and backend.distances:
            yield "backend.distances", f"cannot stand beside backend {self.name}; remove it"
        if backend.device == "emulated" and not _states_times(scenario):
            yield "backend.device", _needs_times("emulated")


class InlineExecution(Execution):
    """one process, one worker at a time"""

    called = "inline"
    runs = "asgd_lab.backends.inline:run"
    has_clock = False
    evaluates = False
    loses_workers = False
    measures_distances = False


class SimulatedExecution(Execution):
    """virtual time"""

    called = "sim"
    runs = "asgd_lab.backends.sim:run"
    simulated = True
    batches = True

    def refuses(self, scenario: Any) -> Contradictions:
        """As in the base class; also shared memory, hanging workers, and faults of devices that workers share."""
        yield from super().refuses(scenario)
        algorithm, faults = scenario.algorithm, scenario.faults
        if algorithm.shared:
            message = f"{algorithm.name} cannot be simulated: which writes meet is up to the processor; use process"
            yield "algorithm.name", message
        if scenario.backend.device != "emulated" and not _states_times(scenario):
            yield "backend", _needs_times("sim")
        if algorithm.divides and scenario.hardware.server.count > 1 and not scenario.hardware.server.independent:
            message = f"must be 1 with {algorithm.name}, which divides the parameters itself, on backend sim"
            yield "hardware.server.count", message
        if faults is None:
            return
        if faults.silent_s is not None:
            yield "faults.silent_s", "cannot stand beside backend sim, whose workers never hang; remove it"
        if faults.on_not_finite != "ignore":
            yield "faults.on_not_finite", "must be ignore with backend sim"
        hardware = scenario.hardware
        is_short = hardware.host.cores is not None and hardware.host.cores < hardware.host.workers
        shares = hardware.cores is not None or hardware.device.workers > 1 or is_short
        for index, each in enumerate(faults.schedule):
            if shares and isinstance(each, Stop | ServerDown):
                what = "cannot be simulated where workers share cores or a device; use kill or slow"
                yield f"faults.schedule.{index}.name", f"{each.name} {what}"


class RealExecution(Execution):
    """a real run, a process a worker"""

    called = "process"
    runs = "asgd_lab.backends.real.launch:run"
    checks = "asgd_lab.backends.real.limits:check"
    measured = True
    apart = True
    logged = True
    saves = True

    def refuses(self, scenario: Any) -> Contradictions:
        """As in the base class; also keys without effect on real processes and their emulated devices."""
        yield from super().refuses(scenario)
        if not scenario.task.learns and scenario.backend.device != "emulated":
            message = f"must be emulated where backend process runs task {scenario.task.name}, not "
            yield "backend.device", f"{message}{scenario.backend.device}; or use backend sim or inline"
        if scenario.faults is not None and scenario.faults.detect_s:
            message = "must be 0 with backend process: a real server hears of a death at once"
            yield "faults.detect_s", message
        if scenario.parts:
            if scenario.backend.device != "cpu":
                yield "backend.device", f"must be cpu where the parameters are divided; got {scenario.backend.device}"
            if scenario.backend.checkpoint is not None:
                yield "backend.checkpoint", "cannot stand beside parts of the parameters or independent servers"
        if scenario.backend.device == "emulated":  # else hardware is for the simulation of the same file
            yield from self._only_simulated(scenario.hardware)

    @staticmethod
    def _only_simulated(hardware: Hardware) -> Contradictions:
        plain, server = Hardware(), hardware.server
        for key, is_asked in (
            ("device.workers", hardware.device.workers > 1),
            ("host.bandwidth_bytes_per_s", hardware.host.bandwidth_bytes_per_s is not None),
            ("cores", hardware.cores is not None),
            ("host.cores", hardware.host.cores is not None and hardware.host.cores < hardware.host.workers),
            ("link.shared", hardware.link.shared),
            ("links", hardware.links != plain.links),
            ("server.bandwidth_bytes_per_s", server.bandwidth_bytes_per_s is not None),
            ("server.count", server.count > 1),
            ("server.distribution", server.distribution != "constant"),
            ("server.one_sided_fetch", server.one_sided_fetch),
        ):
            if is_asked:
                yield f"hardware.{key}", "cannot be emulated by real processes; use backend sim, or remove it"


class UnreadExecution(Execution):
    """A backend whose code may not be imported: it is refused when it would run."""

    def refuses(self, scenario: Any) -> Contradictions:
        """Refuse nothing: no fact is known."""
        yield from ()


def _states_times(scenario: Any) -> bool:
    compute = scenario.hardware.compute
    stated = (compute.step_s, getattr(scenario.task, "step_s", None))
    return stated != (None, None) or compute.distribution == "empirical"


def _needs_times(what: str) -> str:
    return (
        f"{what!r} needs the time of a minibatch; give hardware.compute.step_s, or distribution empirical "
        "with samples_s or run"
    )


BACKENDS = Registry("backends", Execution, (InlineExecution, SimulatedExecution, RealExecution), UnreadExecution)
