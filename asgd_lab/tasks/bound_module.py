"""One module over many vectors: its parameters' data are views of the vector of the replica that computes now.

The module is never copied: a list of its parameters or a closure over them, in the user's code, stays valid and sees
the vector. Only what is trained and synchronised lies in the vector. Each replica has its own buffers, frozen
parameters and parameters that the scenario keeps local; they are put in place with its vector. If the scenario makes
buffers the server's, they lie in the vector, behind the parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from fnmatch import fnmatchcase
from typing import final

import torch
from torch import Tensor, nn

from asgd_lab.errors import RunFailed
from asgd_lab.tasks.flat import Layout

Buffers = dict[str, Tensor]
"""A replica's tensors outside of the vector, by their names in the module, such as BatchNorm's running statistics."""


def in_vector(model: nn.Module, shares_buffers: bool, local: Sequence[str]) -> tuple[list[str], list[Tensor]]:
    """Names of the parameters in the vector, and all tensors in it.

    These are the trained parameters, except those whose names match a pattern of `local`, in the module's order; then
    the floating-point buffers, if they are shared.
    """
    found = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not any(fnmatchcase(name, pattern) for pattern in local)
    }
    shared = [buffer for buffer in model.buffers() if buffer.is_floating_point()] if shares_buffers else []
    return list(found), [*found.values(), *shared]


def layout_of(model: nn.Module, shares_buffers: bool, local: Sequence[str] = ()) -> Layout:
    """The layout of the tensors in the vector."""
    return Layout.of(each.shape for each in in_vector(model, shares_buffers, local)[1])


@final
class ReplicaTensors:
    """One replica's tensors for a module: its parameters, most of them views of its vector, and its buffers."""

    __slots__ = ("buffers", "views")

    def __init__(self, views: list[Tensor], buffers: list[Tensor | None]) -> None:
        self.views, self.buffers = views, buffers


@final
class BoundModule:
    """A module and the replica tensors that it is bound to now. Binding it to others takes some microseconds."""

    def __init__(self, model: nn.Module, layout: Layout, shares_buffers: bool, local: Sequence[str] = ()) -> None:
        self.model, self._layout = model, layout
        self.parameters: dict[str, nn.Parameter] = dict(model.named_parameters())
        self._parameters = list(self.parameters.values())
        self.synchronised = in_vector(model, shares_buffers, local)[0]
        """Names of the parameters in the vector."""
        self.outside = frozenset(self.parameters) - frozenset(self.synchronised)
        """Names of the parameters that are a replica's own: frozen or local ones."""
        self._trained = [each.requires_grad for each in self._parameters]
        parts, parted = dict(model.named_modules()), [(*name.rpartition(".")[::2], name) for name in self.parameters]
        self._homes = [(parts[prefix], attribute, name) for prefix, attribute, name in parted]
        self._slots = list(_slots(model))
        first: dict[int, str] = {}
        # A buffer in several places has the name of the first; an empty place may be filled later.
        self._same = [
            first.setdefault(id(owner[name]), full) if owner[name] is not None else full
            for owner, name, full in self._slots
        ]
        self.canonical = {full: same for (*_, full), same in zip(self._slots, self._same, strict=True)}
        """For each place of a buffer, the canonical name of the buffer."""
        self._known = {*self.canonical, *(name for name, _ in model.named_parameters(remove_duplicate=False))}
        self._names = {name: self._same.index(name) for name in dict.fromkeys(self._same)}
        self.names = frozenset(self._names) | self.outside
        """Canonical names of its tensors outside of the vector, also of buffers that are empty now."""
        floating = [index for index in self._names.values() if _is_floating(self._slots[index])]
        self._shared = floating if shares_buffers else []
        self.shared = frozenset(name for name, index in self._names.items() if index in self._shared)
        """Names of the buffers that lie in the vector."""
        self._place: ReplicaTensors | None = None

    def place(self, vector: Tensor, buffers: Mapping[str, Tensor]) -> ReplicaTensors:
        """Replica tensors over `vector`, with clones of `buffers`, which has all parameters outside of the vector.

        Shared buffers are views of the vector.
        """
        views = self._layout.views(vector)
        count = len(self.synchronised)
        homes = dict(zip(self.synchronised, views, strict=False))
        found = {name: self._typed(name, each).to(vector.device, copy=True) for name, each in buffers.items()}
        names = {index: name for name, index in self._names.items()}
        found |= {names[index]: views[count + number] for number, index in enumerate(self._shared)}
        parameters = [homes[name] if name in homes else found[name] for name in self.parameters]
        return ReplicaTensors(parameters, [found.get(name) for name in self._same])

    def _typed(self, name: str, value: Tensor) -> Tensor:
        """The value in the type of the module's buffer: files lack some types."""
        if name in self.parameters:
            return value.detach()
        owner, attribute, _ = self._slots[self._names[name]]
        now = owner[attribute]
        return value.detach() if now is None else value.detach().to(now.dtype)

    def bind(self, place: ReplicaTensors) -> None:
        """Let the module compute with this replica's parameters and buffers."""
        if self._place is place:
            return
        if self._place is not None:  # a module may put new tensors in its buffers' places
            self._place.buffers = [owner[name] for owner, name, _ in self._slots]
        for parameter, view in zip(self._parameters, place.views, strict=True):
            parameter.data = view
        for (owner, name, _), buffer in zip(self._slots, place.buffers, strict=True):
            owner[name] = buffer
        self._place = place

    def settle(self) -> None:
        """After a minibatch, copy tensors that replaced views of the vector into the vector, and restore the views.

        Models and optimizers may give a parameter other data (`weight.data = ...`), and models may replace buffers.
        """
        assert self._place is not None
        for name, home in zip(self.parameters, self._place.views, strict=True):
            parameter = self.parameters[name]
            if parameter.data_ptr() != home.data_ptr() or parameter.shape != home.shape:
                if parameter.shape != home.shape:
                    shapes = f"{tuple(home.shape)}, and was given data of {tuple(parameter.shape)}"
                    raise RunFailed(f"the model's parameter {name} is of {shapes}")
                home.copy_(parameter.data)
                parameter.data = home
        for index in self._shared:
            owner, name, _ = self._slots[index]
            view = self._place.buffers[index]
            assert view is not None
            if owner[name] is not view:
                view.copy_(self._buffer(index))
                owner[name] = view

    def check(self, step: int) -> None:
        """Check one parameter, another at each step: RunFailed if the module has replaced it."""
        owner, attribute, name = self._homes[step % len(self._homes)]
        if getattr(owner, attribute, None) is not self.parameters[name]:
            raise RunFailed(f"the model has put another parameter in the place of its {name}, which is trained")

    def check_trained(self) -> None:
        """RunFailed if a parameter's `requires_grad` has changed since the start."""
        now = [each.requires_grad for each in self._parameters]
        if now != self._trained:
            name, is_trained = next(
                (name, is_trained)
                for name, is_trained, before in zip(self.parameters, now, self._trained, strict=True)
                if is_trained != before
            )
            raise RunFailed(
                f"the model sets requires_grad of its parameter {name} to {is_trained} while it trains, and optimizers "
                "keep the parameters that they start with; set it in the constructor"
            )

    def replaced(self) -> list[str]:
        """Names of parameters that the module has replaced."""
        now = dict(self.model.named_parameters())
        return [name for name, parameter in self.parameters.items() if now.get(name) is not parameter]

    def late(self) -> list[str]:
        """Names of parameters and buffers that the module registered after its construction."""
        now = [*(name for name, _ in self.model.named_parameters()), *(full for *_, full in _slots(self.model))]
        return [name for name in now if name not in self._known]

    def buffers(self, place: ReplicaTensors) -> Buffers:
        """The replica's tensors outside of the vector, by name; buffers are read from the module while it is bound."""
        if self._place is place:
            found = {full: self._slots[index][0][self._slots[index][1]] for full, index in self._names.items()}
        else:
            found = {full: place.buffers[index] for full, index in self._names.items()}
        own = {name: home for name, home in zip(self.parameters, place.views, strict=True) if name in self.outside}
        return {full: buffer for full, buffer in found.items() if buffer is not None} | own

    def load(self, place: ReplicaTensors, buffers: Mapping[str, Tensor]) -> None:
        """Copy these values into the replica's tensors outside of the vector."""
        self.bind(place)
        homes = dict(zip(self.parameters, place.views, strict=True))
        for full, value in buffers.items():
            if full in homes:
                homes[full].copy_(value)
                continue
            owner, name, _ = self._slots[self._names[full]]
            here = owner[name]
            if here is not None and here.shape == value.shape:
                with torch.no_grad():
                    here.copy_(value)  # in the buffer's own type
            else:  # the module has replaced the buffer
                owner[name] = value.to(place.views[0].device, copy=True)

    def _buffer(self, index: int) -> Tensor:
        owner, name, _ = self._slots[index]
        buffer = owner[name]
        assert buffer is not None
        return buffer


_Slot = tuple[MutableMapping[str, Tensor | None], str, str]
"""A place where a module keeps a buffer: the mapping, the key in it, and the full name."""


def _is_floating(slot: _Slot) -> bool:
    buffer = slot[0][slot[1]]
    return buffer is not None and buffer.is_floating_point()


def _slots(model: nn.Module) -> Iterator[_Slot]:
    for prefix, module in model.named_modules():
        for name in list(module._buffers.keys()):
            yield module._buffers, name, f"{prefix}.{name}" if prefix else name
