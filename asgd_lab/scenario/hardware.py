"""The hardware of a simulated or emulated run, as a scenario states it: seconds, bytes and cores, no behaviour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

import asgd_lab.scenario.presets as presets
from asgd_lab.configuration import Count, Delay, Folder, Part, Positive, Rate, Seconds, Text, refuse

_HAS_CV = ("lognormal", "gamma")


class Compute(Part):
    """The compute time of a worker's minibatches."""

    distribution: Literal["constant", "lognormal", "gamma", "exponential", "empirical"] = "constant"
    """The distribution of a minibatch's time around its mean; empirical draws from samples_s or from a recorded run."""
    step_s: Seconds | None = None
    """The mean time of one minibatch, in seconds; null: stated by the task timing, or given by the samples."""
    cv: Annotated[float, Field(ge=1e-9, le=1e3)] = 0.1
    """Coefficient of variation (standard deviation / mean); only with distribution lognormal or gamma."""
    samples_s: Annotated[list[Seconds], Field(min_length=1)] | None = None
    """Measured times of minibatches, in seconds; only with distribution empirical."""
    run: Annotated[Text | None, Folder()] = None
    """A run directory whose recorded minibatches are the samples; only with distribution empirical.

    More than 20,000 samples are replaced by 20,000 means, of equal shares of the sorted ones."""

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
    """Each worker's own software cost, in parallel with the others'; usually fitted to a measured run."""

    push_s: Delay = 0.0
    """Seconds that a worker spends on each push."""
    fetch_s: Delay = 0.0
    """Seconds that a worker spends on each fetch."""


class SlowPhases(Part):
    """Phases in which a worker's device is slower, independent for each worker: a neighbour's job, a thermal limit."""

    every_s: Seconds
    """Mean seconds from the end of one slow phase to the start of the next (exponential)."""
    length_s: Seconds
    """Mean seconds of a slow phase (exponential)."""
    factor: Annotated[float, Field(gt=1, le=1e6)]
    """The factor by which minibatches take longer in a slow phase."""


class Device(Part):
    """A worker's device: a GPU or a core; several workers may share one."""

    workers: Count = 1
    """Workers on one device; while they compute, each has an equal share of it."""
    memory_bytes: Count | None = None
    """The device's memory, in bytes: replicas that do not fit are refused; null: enough."""
    vectors: Count = 4
    """Vectors of the parameters' size that a replica keeps on the device: parameters, gradient, momentum, fetched
    center. Pushes in flight are in buffers of the host."""
    activations_bytes: Annotated[int, Field(ge=0)] = 0
    """Further bytes that a minibatch needs on the device."""


class Host(Part):
    """A machine that holds several workers."""

    workers: Count = 1
    """Workers on one host."""
    cores: Count | None = None
    """Cores that its workers share fairly, for software costs and, if the device is the CPU, for training."""
    bandwidth_bytes_per_s: Rate | None = None
    """Bandwidth of its network card in one direction, bytes a second, shared by its workers; null: unlimited."""


class Staging(Part):
    """The copies between a device and its host, separate for each worker."""

    latency_s: Delay = 0.0
    """Seconds to begin a copy."""
    to_host_bytes_per_s: Rate | None = None
    """Bytes a second from the device to the host; null: no time."""
    to_device_bytes_per_s: Rate | None = None
    """Bytes a second from the host to the device; null: no time."""


class Link(Part):
    """The link between a worker and the server; its two directions are independent."""

    latency_s: Delay = 0.0
    """Seconds from sending to the first byte's arrival."""
    bandwidth_bytes_per_s: Rate | None = None
    """Bytes a second in each direction; null: unlimited."""
    up_bytes_per_s: Rate | None = None
    """Bytes a second towards the server, if the directions differ."""
    down_bytes_per_s: Rate | None = None
    """Bytes a second towards the workers, if the directions differ."""
    shared: bool = False
    """Whether all workers on the link share its bandwidth fairly; false: each has its full bandwidth."""
    flow_bytes_per_s: Rate | None = None
    """The highest rate of one transfer on a shared link, in bytes a second; null: all that is free."""

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
    """The servers at its other end, counted from 0; null: all."""


class Group(Part):
    """A group of equal workers: the first group has the first workers, and so on."""

    name: Text
    """The group's name, for `links`."""
    workers: Count | None = None
    """The number of workers; null, for one group at most: all that are in no other group."""
    speed: Positive = 1.0
    """The speed of its workers, a factor on that of `compute`."""


class Server(Part):
    """The server's own cost, first come first served; push_s and fetch_s are usually fitted to a measured run."""

    push_s: Delay = 0.0
    """Seconds that the server spends on each push."""
    fetch_s: Delay = 0.0
    """Seconds that the server spends on each fetch."""
    push_bytes_per_s: Rate | None = None
    """Bytes a second at which the server applies a push, in addition to push_s; null: no time."""
    fetch_bytes_per_s: Rate | None = None
    """Bytes a second of the server's copy for a fetch, in addition to fetch_s; null: no copy."""
    distribution: Literal["constant", "exponential"] = "constant"
    """The distribution of these times around their mean."""
    one_sided_fetch: bool = False
    """Whether a fetch reads the parameters past the server (RDMA): it then takes no time of the server, and overtakes
    its whole queue, the worker's own pushes included."""
    count: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Servers, each with an equal slice of the vector; the first one decides the order of the versions for all."""
    independent: bool = False
    """Whether each server makes versions of its own slice, as DistBelief's shards do; also in real runs, where one
    process serves all slices, each in an order of its own."""
    bandwidth_bytes_per_s: Rate | None = None
    """Bandwidth of each server's network card in one direction, bytes a second, shared by all; null: unlimited."""

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
    """Named machines (asgd-lab list presets), whose values apply where this mapping has no key. Later presets override
    earlier ones: mappings key by key, lists as a whole; null removes a value. null: no preset."""
    compute: Compute = Compute()
    """The time of a minibatch."""
    speeds: list[Positive] = Field(default=[1.0], min_length=1)
    """Each worker's speed, a factor on that of `compute`; repeated in turn for more workers."""
    slow_phases: SlowPhases | None = None
    """Temporary stragglers; null: none."""
    device: Device = Device()
    """The devices of the workers."""
    host: Host = Host()
    """The machines that hold the devices."""
    staging: Staging = Staging()
    """The copies between device and host."""
    client: Client = Client()
    """Each worker's own software cost."""
    link: Link = Link()
    """The link that pushes and fetches travel over."""
    groups: list[Group] = Field(default=[])
    """Groups of different workers; none: all are equal."""
    links: list[GroupLink] = Field(default=[])
    """Links of some groups to some servers; all others have `link`."""
    server: Server = Server()
    """The parameter server."""
    cores: Count | None = None
    """Cores of one node, shared by all workers and the server; null: as many as needed."""

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
