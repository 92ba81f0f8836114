"""A function of tensors, recorded as a graph of its aten calls.

The graph contains neither autograd nor vmap nor the function's own Python. It is valid for tensors of the same shapes
and strides, if the function's calls depend on nothing else.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_aggregate
from torch.utils._python_dispatch import TorchDispatchMode

Outputs = tuple[Tensor, ...]


def record(function: Callable[..., Outputs], arguments: Sequence[Tensor]) -> tuple[Callable[..., Outputs], Outputs]:
    """The graph of a call as a function, and the call's outputs. Tensors other than arguments become constants."""
    recorder = _Recorder(arguments)
    with recorder:
        outputs = function(*arguments)
    return recorder.finished(outputs), outputs


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode in which every aten call becomes a node of a graph."""

    def __init__(self, arguments: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph = Graph()
        self._constants = nn.Module()
        self._nodes: dict[int, Node] = {}
        self._alive: list[Tensor] = []  # keeps tensors alive, so that their ids stay unique
        for place, argument in enumerate(arguments):
            self._name(argument, self._graph.placeholder(f"argument_{place}"))

    def finished(self, outputs: Outputs) -> Callable[..., Outputs]:
        """The recorded graph as a function."""
        self._graph.output(tuple(self._node(output) for output in outputs))
        return GraphModule(self._constants, self._graph)

    def _name(self, tensor: Tensor, node: Node) -> None:
        self._nodes[id(tensor)] = node
        self._alive.append(tensor)

    def _node(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if id(leaf) not in self._nodes:
            name = f"constant_{len(self._alive)}"
            self._constants.register_buffer(name, leaf)
            self._name(leaf, self._graph.get_attr(name))
        return self._nodes[id(leaf)]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        made = func(*args, **options)
        inputs = map_aggregate(args, self._node), map_aggregate(options, self._node)
        node = self._graph.call_function(func, *inputs)
        if isinstance(made, Tensor):
            self._name(made, node)
        elif isinstance(made, tuple | list):
            for place, part in enumerate(made):
                if isinstance(part, Tensor):
                    self._name(part, self._graph.call_function(operator.getitem, (node, place)))
        return made
