"""State of a module beside parameters and buffers: modes, and values in attributes, classes and globals.

No checkpoint holds such state. Replicas that share a module share its attributes, and all replicas of a process share
classes and globals. The functions here detect that it changes.
"""

from __future__ import annotations

import functools
import random
import sys
import sysconfig
import types
import warnings
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sized
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_DEPTH = 6  # of containers, objects and closures inside one another
_TORCHS_OWN = frozenset(vars(nn.Module())) | {"_flat_weights", "_flat_weight_refs"}
_COMPILER = "torch._dynamo"  # the wrapper of a compiled model has only the compiler's caches
_OPTIMIZERS_OWN = frozenset(
    ("defaults", "state", "param_groups", "_zero_grad_profile_name", "_warned_capturable_if_run_uncaptured")
)

Modes = list[tuple[nn.Module, bool]]


def modes_of(model: nn.Module) -> Modes:
    """Each layer with its mode (True: training), parents first."""
    return [(module, _is_training(module)) for module in model.modules()]


def restore_modes(model: nn.Module, modes: Modes) -> None:
    """Restore the layers' modes, by their own train() where a mode differs."""
    model.train(modes[0][1])
    for module, training in modes:
        if _is_training(module) != training:
            module.train(training)


def _is_training(module: nn.Module) -> bool:
    """Whether a module is in training mode; one made by torch.jit.freeze has no mode, and evaluates."""
    return bool(getattr(module, "training", False))


def python_state(model: nn.Module) -> Any:
    """A value that compares equal as long as the Python state of the module has not changed."""
    known = _tensors_and_layers(model)
    layers = [each for each in model.modules() if not type(each).__module__.startswith(_COMPILER)]
    return [_of_instance(each, _TORCHS_OWN, known) for each in layers], shared_state(model)


def shared_state(model: nn.Module) -> Any:
    """The part of `python_state` that all modules of a process share: classes, and globals of the user's code."""
    known = _tensors_and_layers(model)
    return _of_classes(model, known), globals_of(_code_of(model), known)


def _tensors_and_layers(model: nn.Module) -> set[int]:
    return {id(each) for each in (*model.parameters(), *model.buffers(), *model.modules())}


def _code_of(model: nn.Module) -> Iterator[Any]:
    """The classes of the model's layers, and the values of their attributes."""
    for module in model.modules():
        yield from type(module).__mro__
        for value in vars(module).values():
            yield from value.values() if isinstance(value, dict) else [value]


def optimizer_attributes(made: torch.optim.Optimizer) -> Any:
    """As `python_state`, for an optimizer's attributes beside `state` and `param_groups`."""
    known = {id(made), *(id(weight) for group in made.param_groups for weight in group["params"])}
    return _of_instance(made, _OPTIMIZERS_OWN, known)


def _of_instance(instance: Any, torchs_own: frozenset[str], known: set[int]) -> Any:
    found = {name: value for name, value in vars(instance).items() if name not in torchs_own}
    for name, value in vars(instance).items():
        if name.endswith("_hooks") and isinstance(value, Mapping):  # the keys are numbered over the whole process
            found[name] = list(value.values())
    return [(name, _described(value, known, _DEPTH)) for name, value in sorted(found.items())]


def _of_classes(model: nn.Module, known: set[int]) -> Any:
    kinds = dict.fromkeys(each for module in model.modules() for each in type(module).__mro__)
    return [
        (each.__qualname__, name, _described(value, known, _DEPTH))
        for each in kinds
        if not each.__module__.startswith(("torch", "builtins"))
        for name, value in vars(each).items()
        if not name.startswith("__") and not callable(value) and not hasattr(value, "__get__")
    ]


def globals_of(code: Iterable[Any], known: set[int]) -> Any:
    """Plain data in the globals of the modules that define this code, and of the modules that those import from.

    Only the user's own modules count, no library's. Long values are described by their identity and length.
    """
    waiting = list(dict.fromkeys(filter(None, map(_home_of, code))))
    seen: dict[str, types.ModuleType] = {}
    while waiting:
        home = waiting.pop()
        if home in seen or (module := sys.modules.get(home)) is None or not _is_own(getattr(module, "__file__", None)):
            continue
        seen[home] = module
        waiting += filter(None, map(_home_of, vars(module).values()))
    return [
        (home, name, _of_data(value, known, _DEPTH))
        for home in sorted(seen)
        for name, value in list(vars(seen[home]).items())
        if not name.startswith("__") and isinstance(value, _DATA)
    ]


def _home_of(value: Any) -> str | None:
    """The name of a module, or of the module that defines a class or a function."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    return getattr(value, "__module__", None) if isinstance(value, type | types.FunctionType) else None


@functools.cache
def _is_own(file: str | None) -> bool:
    """Whether the file is the user's: not of Python, of an installed package or of this package."""
    if file is None:
        return False
    path = Path(file).resolve()
    return not (_INSTALLED & set(path.parts) or any(map(path.is_relative_to, _LIBRARIES)))


_INSTALLED = {"site-packages", "dist-packages"}
_LIBRARIES = [Path(sysconfig.get_path("stdlib")).resolve(), Path(__file__).resolve().parents[1]]
_LARGE = 10_000  # elements


def _of_data(value: Any, known: set[int], depth: int) -> Any:
    """A description of plain data and tensors; the name of the type for anything else."""
    if isinstance(value, Tensor) and value.numel() > _LARGE:
        return id(value), value._version
    if isinstance(value, Sized) and not isinstance(value, Tensor) and _length(value) > _LARGE:
        return id(value), _length(value)
    if not isinstance(value, _DATA) or id(value) in known or depth == 0:
        return type(value).__name__
    inside = known | {id(value)}
    if isinstance(value, Mapping):
        return [(_of_data(key, inside, depth - 1), _of_data(each, inside, depth - 1)) for key, each in _items(value)]
    if isinstance(value, list | tuple | deque):
        return [_of_data(each, inside, depth - 1) for each in value]
    return _described(value, known, depth)


def _items(value: Mapping[Any, Any]) -> Iterable[tuple[Any, Any]]:
    """The items of a mapping; of a dict those that it holds, since its class may import a library for them."""
    return dict.items(value) if isinstance(value, dict) else value.items()


def _length(value: Sized) -> int:
    return value.size if isinstance(value, np.ndarray) else len(value)


_VALUES = (Number, np.generic, str, bytes, range, slice)  # types whose repr is complete
_DATA = (
    *_VALUES, types.NoneType, Tensor, np.ndarray, Mapping, list, tuple, deque, set, frozenset, bytearray, array,
    torch.Generator, random.Random, np.random.Generator, np.random.RandomState,
)  # fmt: skip


def _described(value: Any, known: set[int], depth: int) -> Any:
    if value is None or isinstance(value, _VALUES):
        return repr(value)  # as text, nan equals itself
    if id(value) in known or depth == 0:
        return type(value).__name__
    if isinstance(value, Tensor):
        return _bits(value)
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, hash(value.tobytes())
    if isinstance(value, torch.Generator):
        return _bits(value.get_state())
    if isinstance(value, random.Random):
        return hash(value.getstate())
    if isinstance(value, np.random.Generator | np.random.RandomState):
        return repr((getattr(value, "bit_generator", None) and value.bit_generator.state) or value.get_state())  # type: ignore[union-attr]
    inside = known | {id(value)}
    if isinstance(value, Mapping):
        return [
            (_described(key, inside, depth - 1), _described(each, inside, depth - 1)) for key, each in _items(value)
        ]
    if isinstance(value, list | tuple | deque):
        return [_described(each, inside, depth - 1) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, types.FunctionType):
        cells = [_cell(cell, inside, depth - 1) for cell in value.__closure__ or ()]
        return cells, _described((value.__defaults__, value.__kwdefaults__), inside, depth - 1)
    if isinstance(value, types.MethodType):
        return _described(value.__self__, inside, depth - 1)
    if isinstance(value, functools.partial):
        return _described((value.func, value.args, value.keywords, vars(value)), inside, depth - 1)
    if isinstance(value, bytearray | array):
        return bytes(value)
    if isinstance(value, types.GeneratorType):
        frame = value.gi_frame
        return None if frame is None else (frame.f_lasti, _described(frame.f_locals, inside, depth - 1))
    if isinstance(value, type | types.ModuleType):
        return type(value).__name__
    advanced = _advanced(value, inside, depth - 1) if isinstance(value, Iterator) else None
    return type(value).__name__, advanced, _attributes(value, inside, depth - 1)


def _attributes(value: Any, known: set[int], depth: int) -> Any:
    """The attributes of an object, those in slots included."""
    found: dict[str, Any] = {}
    for each in type(value).__mro__:
        slots = getattr(each, "__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            full = f"_{each.__name__.lstrip('_')}{name}" if name[:2] == "__" and name[-2:] != "__" else name
            if full not in ("__dict__", "__weakref__") and hasattr(value, full):
                found[full] = getattr(value, full)
    found |= getattr(value, "__dict__", {})
    return [(name, _described(each, known, depth)) for name, each in found.items()]


def _advanced(value: Iterator[Any], known: set[int], depth: int) -> Any:
    """The position of one of Python's own iterators, from its pickled form; None for other iterators."""
    if type(value).__module__ not in ("builtins", "itertools"):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return _described(value.__reduce__(), known, depth)
        except TypeError:  # it cannot be pickled
            return None


def _cell(cell: types.CellType, known: set[int], depth: int) -> Any:
    try:
        return _described(cell.cell_contents, known, depth)
    except ValueError:  # empty
        return None


def _bits(tensor: Tensor) -> Any:
    found = tensor.detach().cpu()
    if found.layout != torch.strided or found.is_quantized or found.dtype == torch.bfloat16:
        return str(found)
    return str(found.dtype), tuple(found.shape), hash(found.numpy().tobytes())
