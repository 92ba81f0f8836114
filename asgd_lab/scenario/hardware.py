"""The hardware a run is simulated or emulated on, as a scenario states it: seconds, bytes and cores, no behaviour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from asgd_lab.configuration import Count, Delay, Folder, Part, Positive, Rate, Seconds, Text, refuse
from asgd_lab.scenario import presets

_HAS_CV = ("lognormal", "gamma")


class Compute(Part):
    """How long a worker computes on one minibatch."""

    distribution: Literal["constant", "lognormal", "gamma", "exponential", "empirical"] = "constant"
    """How the time of a minibatch varies around its mean; empirical draws from samples_s or from a recorded run."""
    step_s: Seconds | None = None
    """The mean time of one minibatch, in seconds; null: the task timing states it, or the samples have it."""
    cv: Annotated[float, Field(ge=1e-9, le=1e3)] = 0.1
    """Coefficient of variation (standard deviation / mean); only with distribution lognormal or gamma."""
    samples_s: Annotated[list[Seconds], Field(min_length=1)] | None = None
    """Measured times of minibatches, in seconds; only with distribution empirical."""
    run: Annotated[Text | None, Folder()] = None
    """A run directory whose recorded minibatches are the samples; only with distribution empirical.

    Of more than 20,000 as many are made: the means of equal shares of the sorted ones."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(self._contradictions())
        return self

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        if self.distribution not in _HAS_CV and "cv" in self.model_fields_set:
            yield "cv", f"belongs to distribution lognormal or gamma, not {self.distribution}; remove it or set one"
        samples = [key for key in ("samples_s", "run") if getattr(self, key) is not None]
        if self.distribution != "empirical":
            for key in samples:
                yield key, f"belongs to distribution empirical, not {self.distribution}; remove it or set empirical"
        elif not samples:
            yield "distribution", "'empirical' needs samples; give samples_s or run"
        elif len(samples) == 2:
            yield "run", "cannot stand beside samples_s; give exactly one of samples_s and run"

    @model_serializer(mode="wrap")
    def _without_what_does_not_apply(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        absent = () if self.distribution in _HAS_CV else ("cv",)
        return {key: value for key, value in handler(self).items() if key not in absent}


class Client(Part):
    """Software cost that each worker pays itself, in parallel with the others; as a rule fitted to a measured run."""

    push_s: Delay = 0.0
    """Seconds a worker spends on each push."""
    fetch_s: Delay = 0.0
    """Seconds a worker spends on each fetch."""


class SlowPhases(Part):
    """Times in which a worker's device is slower, each worker's own: a neighbour's job, a thermal limit."""

    every_s: Seconds
    """Mean seconds from the end of one slow phase to the start of the next (exponential)."""
    length_s: Seconds
    """Mean seconds that one lasts (exponential)."""
    factor: Annotated[float, Field(gt=1, le=1e6)]
    """How many times as long a minibatch takes meanwhile."""


class Device(Part):
    """What a worker computes on: a GPU, or a core; several workers may share one."""

    workers: Count = 1
    """Workers on one device, which each get an equal share of it while they compute."""
    memory_bytes: Count | None = None
    """Its memory, in bytes: replicas that do not fit are refused; null: enough."""
    vectors: Count = 4
    """Vectors of the parameters' size that a replica keeps there: parameters, gradient, momentum, fetched
    center. Pushes that are under way lie in buffers of the host."""
    activations_bytes: Annotated[int, Field(ge=0)] = 0
    """What a minibatch needs there besides, in bytes."""


class Host(Part):
    """A machine that holds several workers."""

    workers: Count = 1
    """Workers on one host."""
    cores: Count | None = None
    """Cores that its workers share fairly, for software costs and, where the device is the CPU, for training."""
    bandwidth_bytes_per_s: Rate | None = None
    """Of its network card, bytes a second in one direction, shared by its workers; null: unlimited."""


class Staging(Part):
    """The copies between a device and its host, which each worker makes by itself."""

    latency_s: Delay = 0.0
    """Seconds to begin a copy."""
    to_host_bytes_per_s: Rate | None = None
    """Bytes a second from the device to the host; null: no time."""
    to_device_bytes_per_s: Rate | None = None
    """Bytes a second from the host to the device; null: no time."""


class Link(Part):
    """The way between a worker and the server; both directions carry at once."""

    latency_s: Delay = 0.0
    """Seconds from sending to the first byte's arrival."""
    bandwidth_bytes_per_s: Rate | None = None
    """Bytes a second in each direction; null: unlimited."""
    up_bytes_per_s: Rate | None = None
    """Bytes a second towards the server, where the directions differ."""
    down_bytes_per_s: Rate | None = None
    """Bytes a second towards the workers, where the directions differ."""
    shared: bool = False
    """Whether all workers on it share its bandwidth fairly; false: each has as much to itself."""
    flow_bytes_per_s: Rate | None = None
    """The most that one transfer gets of a shared link, in bytes a second; null: all that is free."""

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        both = self.bandwidth_bytes_per_s is not None
        for key in ("up_bytes_per_s", "down_bytes_per_s"):
            if both and getattr(self, key) is not None:
                refuse([(key, "cannot stand beside bandwidth_bytes_per_s; give that, or up and down apart")])
        if self.flow_bytes_per_s is not None and not self.shared:
            refuse([("flow_bytes_per_s", "belongs to a shared link; set shared: true, or give the bandwidth")])
        return self

    @property
    def up(self) -> float | None:
        """Bytes a second towards the server."""
        return self.up_bytes_per_s if self.up_bytes_per_s is not None else self.bandwidth_bytes_per_s

    @property
    def down(self) -> float | None:
        """Bytes a second towards the workers."""
        return self.down_bytes_per_s if self.down_bytes_per_s is not None else self.bandwidth_bytes_per_s


class GroupLink(Link):
    """The link between one group of workers and some servers, in place of `link`."""

    group: Text
    """The name of a group of workers."""
    servers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    """The servers it leads to, counted from 0; null: all."""


class Group(Part):
    """Workers that are alike: the first group has the first workers, and so on."""

    name: Text
    """What `links` calls it."""
    workers: Count | None = None
    """How many; null, for one group at most: all that no other group has."""
    speed: Positive = 1.0
    """How many times as fast as `compute` says its workers are."""


class Server(Part):
    """The server's own cost: serial, first come first served; push_s and fetch_s are as a rule fitted to a run."""

    push_s: Delay = 0.0
    """Seconds the server spends on each push."""
    fetch_s: Delay = 0.0
    """Seconds the server spends on each fetch."""
    push_bytes_per_s: Rate | None = None
    """Bytes a second at which it applies a push, besides push_s; null: no time."""
    fetch_bytes_per_s: Rate | None = None
    """Bytes a second of the copy that a fetch makes there, besides fetch_s; null: no copy."""
    distribution: Literal["constant", "exponential"] = "constant"
    """How these times vary around their mean."""
    one_sided_fetch: bool = False
    """Whether a fetch reads the parameters past the server (RDMA): it then costs no time there, and overtakes all that
    queues there, the worker's own pushes included."""
    count: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Servers, each with an equal slice of the vector; the first one decides the order of the versions for all."""
    independent: bool = False
    """Whether each server makes versions of its slice by itself, as DistBelief's shards do."""
    bandwidth_bytes_per_s: Rate | None = None
    """Of each server's network card, bytes a second in one direction, shared by all; null: unlimited."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for key in ("fetch_s", "fetch_bytes_per_s"):
            if self.one_sided_fetch and getattr(self, key):
                refuse([(key, "cannot stand where one_sided_fetch is true: the server does not see the fetch")])
        if self.independent and self.count == 1:
            refuse([("independent", "needs several servers; give count, or remove it")])
        return self


class Hardware(Part):
    """Devices, hosts, links and servers of the simulated or emulated machine."""

    preset: presets.Name | list[presets.Name] | None = None
    """Named machines (asgd-lab list presets) whose values stand where this mapping has no key, the later over the
    earlier; a mapping goes key by key, a list goes as a whole, and null takes a value away. null: none."""
    compute: Compute = Compute()
    """The time of a minibatch."""
    speeds: list[Positive] = Field(default=[1.0], min_length=1)
    """How many times as fast as `compute` says each worker is; repeated in turn where there are more workers."""
    slow_phases: SlowPhases | None = None
    """Stragglers that come and go; null: none."""
    device: Device = Device()
    """What a worker computes on."""
    host: Host = Host()
    """What holds the devices."""
    staging: Staging = Staging()
    """The copies between device and host."""
    client: Client = Client()
    """Each worker's own software cost."""
    link: Link = Link()
    """What pushes and fetches travel over."""
    groups: list[Group] = Field(default=[])
    """Groups of workers that differ; none: all are alike."""
    links: list[GroupLink] = Field(default=[])
    """Links of some groups to some servers; `link` is for all others."""
    server: Server = Server()
    """The parameter server."""
    cores: Count | None = None
    """Cores of one node, which all workers and the server share; null: never short of cores."""

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, data: Any) -> Any:
        return presets.filled(data) if isinstance(data, dict) and data.get("preset") is not None else data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(self._contradictions())
        return self

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        names = [group.name for group in self.groups]
        for index, name in enumerate(names):
            if name in names[:index]:
                yield f"groups.{index}.name", f"{name!r} is given twice; names of groups must differ"
        if sum(group.workers is None for group in self.groups) > 1:
            yield "groups", "leaves open the workers of more than one group; give workers to all but one"
        known = ", ".join(names) or "there are no groups"
        for index, link in enumerate(self.links):
            if link.group not in names:
                yield f"links.{index}.group", f"{link.group!r} is no group; allowed: {known}"
            if link.servers is not None and max(link.servers) >= self.server.count:
                yield (
                    f"links.{index}.servers",
                    f"must be below server.count, {self.server.count}: the first server is 0; got {max(link.servers)}",
                )
            if any(self._overlap(link, other) for other in self.links[:index]):
                yield (
                    f"links.{index}",
                    f"leads {link.group!r} to a server that an earlier one leads to; keep one of them",
                )
        if self.cores is not None and self.host.cores is not None:
            yield "host.cores", "cannot stand beside cores, which make all workers one node; give one of the two"
        if self.slow_phases is not None:
            if self.device.workers > 1:
                yield "slow_phases", "cannot slow a device that several workers share; remove it, or device.workers"
            if self.cores is not None:
                yield "slow_phases", "cannot slow cores that several workers share; remove it, or cores"
            if self.host.cores is not None and self.host.cores < self.host.workers:
                yield "slow_phases", "cannot slow cores that several workers share; remove it, or give more host.cores"

    @staticmethod
    def _overlap(one: GroupLink, other: GroupLink) -> bool:
        if one.group != other.group:
            return False
        return one.servers is None or other.servers is None or not set(one.servers).isdisjoint(other.servers)
