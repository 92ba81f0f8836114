"""An optimizer's `state_dict` as named tensors, and back, to the bit, without pickle.

Tensors are saved by name; their containers (mappings, lists, tuples, numbers, strings, None) become JSON text, kept as
bytes in a tensor. Other values are refused. An optimizer with state outside its `state_dict` cannot be saved this way.
`stray` detects such state by the steps of a toy, `check_restored` by attributes, which may affect later steps only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks.global_generators import preserving_generators, seed_all
from asgd_lab.tasks.python_state import optimizer_attributes

Stepper = torch.optim.Optimizer | LRScheduler
"""Steps once after each minibatch."""
PREFIX = "optimizer."
_TEXT = "optimizer.text"
# numpy lacks these types: files hold their bits as integers of the same size.
_BITS = {torch.bfloat16: torch.int16} | {
    getattr(torch, name): torch.uint8 for name in dir(torch) if name.startswith("float8_")
}
_STEPS, _SAVED_AT = 13, (1, 2, 6)  # of the toy; some optimizers, such as Lookahead, act every few steps only


def state_of(made: Stepper) -> dict[str, Tensor]:
    """The state as tensors by name; a `ScenarioError` names a value that is neither a tensor nor plain."""
    try:
        return packed(made.state_dict())
    except TypeError as error:
        message = f"{type(made).__name__} cannot be saved: {error}"
        raise ScenarioError.at("task.optimizer.name", message) from error


def packed(state: Any) -> dict[str, Tensor]:
    """A value of tensors, arrays, plain values and containers as tensors by name; a TypeError names another value."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_packed(state, "", tensors))
    return {_TEXT: torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8), **tensors}


def unpacked(tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    """The value from `packed`, with copies of its tensors."""
    return _unpacked(json.loads(tensors[_TEXT].cpu().numpy().tobytes()), tensors, device)


def groups_of(made: torch.optim.Optimizer) -> tuple[str, list[bytes]]:
    """The content of its `param_groups`, without the parameters, for comparison."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_packed(made.state_dict()["param_groups"], "", tensors))
    return text, [tensor.cpu().numpy().tobytes() for tensor in tensors.values()]


def load_state(made: Stepper, state: Mapping[str, Tensor]) -> None:
    """Restore a state from `state_of`; its tensors are copied."""
    if _TEXT not in state:
        raise ScenarioError("the checkpoint holds no state of the local optimizer: an older version wrote it")
    weights = [] if isinstance(made, LRScheduler) else [each for group in made.param_groups for each in group["params"]]
    device = weights[0].device if weights else torch.device("cpu")
    saved = unpacked(state, device)
    made.load_state_dict(saved)
    _exactly(made, saved)


def check_restored(before: torch.optim.Optimizer, after: torch.optim.Optimizer) -> None:
    """A `ScenarioError` if `after`, restored from the state of `before`, has other attributes."""
    if optimizer_attributes(before) != optimizer_attributes(after):
        message = f"{type(before).__name__} keeps something in attributes that no checkpoint has: its state_dict does"
        raise ScenarioError.at(
            "backend.checkpoint", f"{message} not hold it, or its load_state_dict does not restore it"
        )


def stray(make: Callable[[Iterable[Tensor]], torch.optim.Optimizer]) -> str | None:
    """Save and load an optimizer of a toy: a line if it then takes other steps than the original, else None.

    Random numbers are seeded before each step, as they are before each minibatch.
    """
    with preserving_generators():
        toy, made = _toy(make)
        saved: dict[int, tuple[dict[str, Tensor], Tensor]] = {}
        after: dict[int, Tensor] = {}
        for step in range(_STEPS):
            if step in _SAVED_AT:
                copied = {name: value.clone() for name, value in state_of(made).items()}
                saved[step] = copied, toy.detach().clone()
            _step(toy, made, step)
            after[step] = toy.detach().clone()
        for start, (state, values) in saved.items():
            toy, made = _toy(make)
            toy.data.copy_(values)
            load_state(made, state)
            if (there := _difference(state, state_of(made))) is not None:
                return f"its state_dict is another after loading: {there}"
            for step in range(start, _STEPS):
                _step(toy, made, step)
                if not torch.equal(toy.view(torch.int32), after[step].view(torch.int32)):
                    return "saved and loaded it takes other steps: it keeps something outside its state_dict"
    return None


def _toy(make: Callable[[Iterable[Tensor]], torch.optim.Optimizer]) -> tuple[Tensor, torch.optim.Optimizer]:
    toy = torch.linspace(-1.0, 1.0, 4).view(2, 2).requires_grad_()
    return toy, make([toy])


def _step(toy: Tensor, made: torch.optim.Optimizer, step: int) -> None:
    seed_all(step)
    toy.grad = torch.sin(torch.arange(4.0).view(2, 2) + step) + 0.1 * toy.detach()
    made.step()


def _difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str | None:
    for name in sorted(one.keys() | other.keys()):
        if name == _TEXT:
            continue
        here, there = one.get(name), other.get(name)
        if here is None or there is None or here.dtype != there.dtype or here.shape != there.shape:
            return name.removeprefix(PREFIX)
        if here.cpu().numpy().tobytes() != there.cpu().numpy().tobytes():
            return name.removeprefix(PREFIX)
    texts = [bytes(each[_TEXT].cpu().numpy()).decode() for each in (one, other)]
    return None if texts[0] == texts[1] else "its numbers, or what kinds of values it has"


def _packed(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """The value in JSON's types; a mapping with one key encodes a type that JSON lacks."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_packed(item, f"{place}.{index}", tensors) for index, item in enumerate(value)]
    if isinstance(value, Tensor):
        name = _kept(value.detach(), place, tensors)
        return {"tensor": [name, str(value.dtype).removeprefix("torch."), value.device.type == "cpu"]}
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.hasobject:
            raise TypeError(f"its {place.lstrip('.')} is an array of objects")
        array = torch.from_numpy(np.frombuffer(np.asarray(value, order="C").tobytes(), np.uint8).copy())
        name = _kept(array, place, tensors)
        return {"array": [name, value.dtype.str, list(value.shape), isinstance(value, np.generic)]}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if kind in (tuple, torch.Size):
        return {"tuple": [_packed(item, f"{place}.{index}", tensors) for index, item in enumerate(value)]}
    if isinstance(value, Mapping):
        items = value.items()
        return {"map": [[_key(key, place), _packed(item, f"{place}.{key}", tensors)] for key, item in items]}
    raise TypeError(f"its {place.lstrip('.')} is a {kind.__name__}, which is neither a tensor nor a plain value")


def _key(key: Any, place: str) -> Any:
    if type(key) not in (str, int):
        raise TypeError(f"its {place.lstrip('.') or 'state_dict'} has a key that is a {type(key).__name__}")
    return key


def _kept(value: Tensor, place: str, tensors: dict[str, Tensor]) -> str:
    if value.layout != torch.strided or value.is_quantized:
        raise TypeError(f"its {place.lstrip('.')} is no dense tensor")
    name = f"{PREFIX}{len(tensors)}{place}"
    tensors[name] = value.view(_BITS[value.dtype]) if value.dtype in _BITS else value
    return name


def _unpacked(value: Any, state: Mapping[str, Tensor], device: torch.device) -> Any:
    if isinstance(value, list):
        return [_unpacked(item, state, device) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    match kind:
        case "map":
            return {key: _unpacked(item, state, device) for key, item in inner}
        case "tuple":
            return tuple(_unpacked(item, state, device) for item in inner)
        case "dtype":
            return getattr(torch, inner)
        case "array":
            name, dtype, shape, is_scalar = inner
            array = np.frombuffer(state[name].cpu().numpy().tobytes(), np.dtype(dtype)).reshape(shape).copy()
            return array[()] if is_scalar else array
        case _:
            name, dtype, stays = inner
            copied = state[name].to("cpu" if stays else device, copy=True)
            return copied if copied.dtype == getattr(torch, dtype) else copied.view(getattr(torch, dtype))


def _exactly(made: Stepper, saved: Mapping[str, Any]) -> None:
    """Undo the casts of torch's `load_state_dict`, which converts state to the parameter's type and breaks strings."""
    if isinstance(made, LRScheduler) or type(made).load_state_dict is not torch.optim.Optimizer.load_state_dict:
        return
    weights = [weight for group in made.param_groups for weight in group["params"]]
    for index, theirs in saved["state"].items():
        if isinstance(index, int) and isinstance(theirs, dict):
            made.state[weights[index]] = theirs
