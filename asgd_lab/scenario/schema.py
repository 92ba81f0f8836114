"""The whole scenario, the contradictions between its parts, and its JSON Schema; no file is read here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

import asgd_lab.scenario.scaling as scaling
from asgd_lab import live_objects
from asgd_lab.algorithms import ALGORITHMS, Configuration
from asgd_lab.configuration import Part, Text, refuse
from asgd_lab.loggers import Logs
from asgd_lab.scenario.backends import Backend, BackendChoice
from asgd_lab.scenario.hardware import Hardware
from asgd_lab.scenario.running import Budget, Evaluate, Faults, ServerDown, WarmStart
from asgd_lab.scenario.tasks import TASKS, Learned
from asgd_lab.trust import is_display

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

Figure = Literal["speedup", "where_time_goes", "curves", "staleness", "throughput", "final", "to_target", "none"]


def _names_a_folder(name: str) -> str:
    if name.startswith(".") or not name.isprintable() or set(name) & set("/\\"):
        refuse([("", "must be able to name a folder; no slash, no control character, no dot at the start")])
    return name


Name = Annotated[Text, Field(max_length=100), AfterValidator(_names_a_folder)]


class Scenario(Part):
    """A run: its task, workers, algorithm and hardware; with a sweep, several runs."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: Name
    """The scenario's name; its runs are kept in a folder of this name."""
    description: str = ""
    """The scenario's purpose, in words."""
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = 0
    """The seed; all random numbers are functions of it."""
    task: Annotated[Learned, TASKS]
    """The model, data, loss and local optimizer; chosen by its name."""
    algorithm: Annotated[Configuration, ALGORITHMS]
    """The workers' program, their waiting, and the server's use of a push; chosen by its name."""
    workers: Annotated[int, Field(ge=1, le=100_000)] = 1
    """The number of workers that train at once."""
    budget: Budget
    """The end of the run."""
    warm_start: WarmStart | None = None
    """The source of the initial parameters; null: they are initialised from the seed."""
    evaluate: Evaluate | None = None
    """Evaluations during the run; null: only the final parameters are evaluated."""
    backend: BackendChoice = Backend(name="process")
    """The backend that carries the run out: a mapping, or a name alone."""
    hardware: Hardware = Hardware()
    """The machine of a simulated or emulated run; costs that are not stated are zero."""
    faults: Faults | None = None
    """Crashes, restarts and the like, and the reactions to them; null: none, and a real run ends with the first."""
    record: Literal["all", "sampled", "summary"] = "all"
    """The recorded rows: every row, a sample of the rows, or the summary alone."""
    log: Logs = Field(default=[], examples=[["tensorboard"], ["wandb", "mlflow"]])
    """Loggers that get the run's curves, the scenario's values and the final numbers while it runs: tensorboard, wandb,
    mlflow, or a class of your own. They change nothing of the run, and a failure of theirs is a warning."""
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default={}, examples=[{"algorithm.n_sync": [1, 10, 100], "workers": [1, 2, 4, 8]}]
    )
    """Dotted keys of this scenario, each with a list of values; their product is run, the first key slowest."""

    figure: Figure | None = None
    """The figure that `run` draws of a sweep; curves, staleness and where_time_goes of a single run too. null: the one
    that the swept keys suggest; none: no figure. speedup: speed-up and staleness over the workers; where_time_goes: the
    shares of workers' time, of simulations; curves: evaluations over minibatches and over time; staleness: its
    histograms; throughput, final and to_target: throughput, the final result, and seconds and minibatches to the target
    over a swept number."""
    report: bool = True
    """Whether the commands `run` and `compare` write report.html into their directory at their end, where the package
    plotly is installed."""

    @property
    def parts(self) -> int:
        """The parts that the parameters are divided into, by the algorithm or by independent servers; 0: none."""
        return self.algorithm.divides or (self.hardware.server.count if self.hardware.server.independent else 0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not is_display():
            refuse(live_objects.absent(self))
        refuse(_contradictions(self))
        return self

    def __reduce__(self) -> Any:
        """Pickle the live objects that it names before itself: the receiving process finds them when it reads it."""
        return _received, (type(self), live_objects.travelling(self)), self.__getstate__()


def _received(kind: type[Scenario], objects: Mapping[str, live_objects.Travelling]) -> Scenario:
    live_objects.receive(objects)
    return kind.__new__(kind)


def _contradictions(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """The refusals of each choice, and the contradictions between other keys."""
    # A user's class may replace `refuses`; what its base refuses stays refused.
    algorithm, task = scenario.algorithm, scenario.task
    yield from dict.fromkeys([*Configuration.refuses(algorithm, scenario), *algorithm.refuses(scenario)])
    yield from dict.fromkeys([*Learned.refuses(task, scenario), *task.refuses(scenario)])
    yield from scenario.backend.execution.refuses(scenario)
    if scenario.algorithm.push == "gradient" and scenario.task.learns:
        yield from _gradients(scenario)
    for index, each in enumerate(scenario.faults.schedule if scenario.faults is not None else ()):
        if not isinstance(each, ServerDown) and each.worker >= scenario.workers:
            yield (
                f"faults.schedule.{index}.worker",
                f"must be less than workers, which is {scenario.workers}; got {each.worker}",
            )
    backend, server, host = scenario.backend, scenario.hardware.server, scenario.hardware.host
    if backend.deterministic and backend.device != "cuda":
        yield "backend.deterministic", f"changes nothing on device {backend.device}, where bits repeat; remove it"
    yield from _groups(scenario)
    yield from scaling.contradictions(scenario)
    if server.count > 1 and scenario.hardware.cores is not None:
        yield "hardware.server.count", "must be 1 where cores make one node of all; remove cores"
    if host.workers > 1 and host.workers % scenario.hardware.device.workers:
        yield "hardware.device.workers", "must divide hardware.host.workers: a device belongs to one host"


def _gradients(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Keys that change only a worker's own steps, and so have no effect if pushes carry sums of gradients."""
    task: Any = scenario.task
    algorithm, options = scenario.algorithm, getattr(getattr(task, "optimizer", None), "options", {})
    lost = "does not reach the server beside push: gradient, which sends the sum of the gradients"
    if options.get("weight_decay"):
        yield "task.optimizer.weight_decay", f"{lost}; remove it, or use push: delta"
    for key in ("schedule", "biases"):
        if getattr(task, key, None) is not None:
            yield f"task.{key}", f"{lost}; remove it, or use push: delta"
    seen = scenario.evaluate is not None and "replicas" in scenario.evaluate.parameters
    if algorithm.n_fetch == 1 and not seen:
        for key in ("momentum", "nesterov", "dampening"):
            if options.get(key):
                what = "changes nothing beside push: gradient where a fetch follows each minibatch"
                yield f"task.optimizer.{key}", f"{what}; remove it, or give the rule a momentum"


def _groups(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """The groups must contain all workers."""
    groups = scenario.hardware.groups
    stated = sum(group.workers or 0 for group in groups)
    is_open = any(group.workers is None for group in groups)
    if groups and (stated > scenario.workers or (stated < scenario.workers and not is_open)):
        yield (
            "hardware.groups",
            f"have {stated} workers together, and the scenario has {scenario.workers}; make them equal, or leave "
            "workers out of one group",
        )


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a scenario file, for editors."""
    schema = Scenario.model_json_schema()
    schema.update({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "asgd-lab scenario"})
    return {key: schema.pop(key) for key in ("$schema", "title")} | schema
