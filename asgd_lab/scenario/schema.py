"""The whole scenario, what its parts may not say together, and the JSON Schema of it all; no file is read here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from asgd_lab.algorithms import ALGORITHMS, Configuration
from asgd_lab.configuration import Part, Text, refuse
from asgd_lab.scenario import scaling
from asgd_lab.scenario.hardware import Hardware
from asgd_lab.scenario.running import Backend, BackendChoice, Budget, Evaluate, Faults, ServerDown, Stop, WarmStart
from asgd_lab.scenario.tasks import Classification, Task, Timing

_EXAMPLE: JsonDict = {
    "name": "digits-asgd",
    "task": {"name": "classification", "dataset": "digits", "optimizer": {"name": "SGD", "lr": 0.05}},
    "algorithm": {"name": "asgd", "n_sync": 10},
    "workers": 4,
    "budget": {"minibatches": 2000},
    "backend": "sim",
    "hardware": {"compute": {"step_s": 0.01}, "link": {"latency_s": 1e-4, "bandwidth_bytes_per_s": 1e9}},
    "sweep": {"algorithm.n_sync": [1, 10, 100], "seed": [0, 1, 2]},
}
MOST_SEED = 2**63 - 1


def _names_a_folder(name: str) -> str:
    if name.startswith(".") or not name.isprintable() or set(name) & set("/\\"):
        refuse([("", "must be able to name a folder; no slash, no control character, no dot at the start")])
    return name


class Scenario(Part):
    """What is learned, by how many workers, with which algorithm, on which hardware; a sweep makes several of one."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: Annotated[Text, Field(max_length=100), AfterValidator(_names_a_folder)]
    """What the scenario is called; its runs are kept in a folder of this name."""
    description: str = ""
    """What the scenario is for, in words."""
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = 0
    """All random numbers are functions of it."""
    task: Task
    """What is learned; chosen by its name."""
    algorithm: Annotated[Configuration, ALGORITHMS]
    """Who waits for whom, and what the server does with a push; chosen by its name."""
    workers: Annotated[int, Field(ge=1, le=100_000)] = 1
    """How many workers train at once."""
    budget: Budget
    """When the run ends."""
    warm_start: WarmStart | None = None
    """Where the parameters come from; null: they are initialised from the seed."""
    evaluate: Evaluate | None = None
    """What is evaluated during the run; null: only the final parameters."""
    backend: BackendChoice = Backend(name="process")
    """What carries the run out: a mapping, or a name alone."""
    hardware: Hardware = Hardware()
    """The machine that a simulated or emulated run pretends to have; free and infinitely fast where nothing is said."""
    faults: Faults | None = None
    """Crashes, restarts and the like, and what is done about them; null: none, and a real run ends with the first."""
    record: Literal["all", "sampled", "summary"] = "all"
    """How much is written down: every row, a sample of the rows, or the summary alone."""
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default={}, examples=[{"algorithm.n_sync": [1, 10, 100], "workers": [1, 2, 4, 8]}]
    )
    """Dotted keys of this scenario, each with the values it takes; runs their product, the first key slowest."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(_contradictions(self))
        return self


def _contradictions(scenario: Scenario) -> Iterator[tuple[str, str]]:
    task, backend, compute = scenario.task, scenario.backend, scenario.hardware.compute
    if scenario.algorithm.name == "sgd" and scenario.workers != 1:
        yield "workers", f"must be 1 with algorithm sgd; got {scenario.workers}; for more use asgd, ssp or sync_sgd"
    if isinstance(task, Classification) and task.batch_norm == "server" and scenario.algorithm.push != "delta":
        yield "task.batch_norm", "must be local with push: gradient, which has none for running statistics"
    if scenario.algorithm.name == "hogwild":
        yield from _without_copies(backend)
    if scenario.budget.target_error is not None and not isinstance(task, Classification):
        yield (
            "budget.target_error",
            f"needs task classification, and {task.name} has no error; use minibatches, updates or seconds",
        )
    if backend.name == "process":
        yield from _only_simulated(scenario)
    if scenario.algorithm.push == "gradient":
        yield from _gradients(scenario)
    if scenario.faults is not None:
        yield from _faults(scenario, scenario.faults)
    yield from _devices(backend, task)
    if backend.distances:
        yield from _distances(scenario)
    for key in ("checkpoint", "digest_every_updates"):
        if backend.name != "process" and getattr(backend, key) is not None:
            yield f"backend.{key}", f"cannot stand beside backend {backend.name}; only process needs it; remove it"
    if backend.name != "sim" and backend.numerics != "sequential":
        yield "backend.numerics", f"must be sequential with backend {backend.name}, whose workers compute by themselves"
    yield from _groups(scenario)
    yield from scaling.contradictions(scenario)
    server = scenario.hardware.server
    if server.count > 1 and scenario.hardware.cores is not None:
        yield "hardware.server.count", "must be 1 where cores make one node of all; remove cores"
    if server.independent and scenario.algorithm.name not in ("asgd", "downpour", "sgd"):
        yield (
            "hardware.server.independent",
            f"{scenario.algorithm.name} needs one server that knows all workers; use asgd or downpour",
        )
    if server.independent and scenario.faults is not None:
        yield "faults", "cannot stand beside independent servers; remove one of the two"
    if backend.name == "inline" and scenario.budget.seconds is not None:
        yield "budget.seconds", "needs a clock, and backend inline has none; use minibatches or updates"
    if backend.name == "inline" and scenario.evaluate is not None and not isinstance(task, Timing):
        yield "evaluate", "cannot stand beside backend inline, which evaluates at the end alone; remove it"
    if isinstance(task, Timing):
        if scenario.evaluate is not None:
            yield "evaluate", "cannot stand beside task timing, which learns nothing; remove it"
        if task.step_s is not None and compute.step_s not in (None, task.step_s):
            yield (
                "hardware.compute.step_s",
                f"must be the task's step_s, {task.step_s!r}; got {compute.step_s!r}; give one of the two",
            )
    if (
        (backend.name == "sim" or backend.device == "emulated")
        and compute.step_s is None
        and getattr(task, "step_s", None) is None
        and compute.distribution != "empirical"
    ):
        key, what = ("backend", "sim") if backend.name == "sim" else ("backend.device", "emulated")
        yield (
            key,
            f"{what!r} needs the time of a minibatch; give hardware.compute.step_s, or distribution empirical "
            "with samples_s or run",
        )
    if scenario.hardware.host.workers > 1 and scenario.hardware.host.workers % scenario.hardware.device.workers:
        yield "hardware.device.workers", "must divide hardware.host.workers: a device belongs to one host"


def _devices(backend: Backend, task: Task) -> Iterator[tuple[str, str]]:
    """Devices that would have nothing to do, and what only GPUs are asked for."""
    name, device = backend.name, backend.device
    if isinstance(task, Timing) and name == "process" and device != "emulated":
        message = f"must be emulated where backend process runs task timing, not {device}; or use backend sim or inline"
        yield "backend.device", message
    elif isinstance(task, Timing) and device == "cuda":
        allowed = "cpu or emulated" if name == "sim" else "cpu"
        yield "backend.device", f"must be {allowed} with task timing, which computes nothing; got cuda"
    if name == "inline" and device == "emulated":
        yield "backend.device", "must be cpu or cuda with backend inline, which has no clock; got emulated"
    if backend.deterministic and device != "cuda":
        yield "backend.deterministic", f"changes nothing on device {device}, where bits repeat; remove it"


def _gradients(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """What shapes a worker's own steps only, and is lost where the server is sent the sum of its gradients."""
    task, algorithm = scenario.task, scenario.algorithm
    if isinstance(task, Timing):
        return
    lost = "does not reach the server beside push: gradient, which sends the sum of the gradients"
    if task.optimizer.options.get("weight_decay"):
        yield "task.optimizer.weight_decay", f"{lost}; remove it, or use push: delta"
    for key in ("schedule", "biases"):
        if getattr(task, key, None) is not None:
            yield f"task.{key}", f"{lost}; remove it, or use push: delta"
    seen = scenario.evaluate is not None and "replicas" in scenario.evaluate.parameters
    if algorithm.n_fetch == 1 and not seen:
        for key in ("momentum", "nesterov", "dampening"):
            if task.optimizer.options.get(key):
                what = "changes nothing beside push: gradient where a fetch follows each minibatch"
                yield f"task.optimizer.{key}", f"{what}; remove it, or give the rule a momentum"


def _distances(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Where no one center is what an update started from."""
    algorithm = scenario.algorithm
    if scenario.backend.name == "inline" or isinstance(scenario.task, Timing):
        what = "backend inline" if scenario.backend.name == "inline" else "task timing"
        yield "backend.distances", f"cannot stand beside {what}; remove it"
    elif algorithm.name in ("downpour", "hogwild") or algorithm.n_fetch != algorithm.n_push:
        yield "backend.distances", "needs an update to have one center: n_sync, and not downpour or hogwild"
    elif scenario.hardware.server.independent:
        yield "backend.distances", "cannot stand beside independent servers; remove it"


def _without_copies(backend: Backend) -> Iterator[tuple[str, str]]:
    """What has no meaning where workers share one vector."""
    if backend.name == "sim":
        yield (
            "algorithm.name",
            "hogwild cannot be simulated: which writes meet is up to the processor; use process",
        )
    if backend.device == "cuda":
        yield "backend.device", "must be cpu or emulated with hogwild, whose workers share memory; got cuda"
    if backend.checkpoint is not None:
        yield "backend.checkpoint", "cannot stand beside hogwild: there is no moment at which its parameters are whole"
    if backend.digest_every_updates is not None:
        yield "backend.digest_every_updates", "cannot stand beside hogwild, which has no versions; remove it"


def _faults(scenario: Scenario, faults: Faults) -> Iterator[tuple[str, str]]:
    """What has no meaning on this backend, and who is not there."""
    name = scenario.backend.name
    if name == "inline":
        yield "faults", "cannot stand beside backend inline: only sim and process have workers that die; remove it"
    for index, each in enumerate(faults.schedule):
        if not isinstance(each, ServerDown) and each.worker >= scenario.workers:
            yield (
                f"faults.schedule.{index}.worker",
                f"must be less than workers, which is {scenario.workers}; got {each.worker}",
            )
    if name == "process" and faults.detect_s:
        yield "faults.detect_s", "must be 0 with backend process: a real server hears of a death at once"
    yield from _only_real(scenario, faults)
    if name == "sim" and faults.silent_s is not None:
        yield "faults.silent_s", "cannot stand beside backend sim, whose workers never hang; remove it"
    if faults.on_not_finite != "ignore" and (name == "sim" or isinstance(scenario.task, Timing)):
        where = "backend sim" if name == "sim" else "task timing, which has no loss"
        yield "faults.on_not_finite", f"must be ignore with {where}"


def _only_real(scenario: Scenario, faults: Faults) -> Iterator[tuple[str, str]]:
    """Faults that the simulator does not know where workers share cores or devices."""
    hardware = scenario.hardware
    is_short = hardware.host.cores is not None and hardware.host.cores < hardware.host.workers
    shares = hardware.cores is not None or hardware.device.workers > 1 or is_short
    for index, each in enumerate(faults.schedule):
        if scenario.backend.name == "sim" and shares and isinstance(each, Stop | ServerDown):
            yield (
                f"faults.schedule.{index}.name",
                f"{each.name} cannot be simulated where workers share cores or a device; use kill or slow",
            )


def _groups(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """The groups must hold all workers."""
    groups = scenario.hardware.groups
    stated = sum(group.workers or 0 for group in groups)
    is_open = any(group.workers is None for group in groups)
    if groups and (stated > scenario.workers or (stated < scenario.workers and not is_open)):
        yield (
            "hardware.groups",
            f"have {stated} workers together, and the scenario has {scenario.workers}; make them equal, or leave "
            "workers out of one group",
        )


def _only_simulated(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """What real processes, whose devices may be emulated, do not do."""
    hardware = scenario.hardware
    if scenario.backend.device != "emulated":
        return  # hardware is for the simulation of the same file
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


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a scenario file, for editors."""
    schema = Scenario.model_json_schema()
    schema.update({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "asgd-lab scenario"})
    return {key: schema.pop(key) for key in ("$schema", "title")} | schema
