"""GPUs that are none: tensors that say they lie on cuda, whose memory is the CPU's.

What mixes the two devices, or asks for the memory of a GPU, fails as it would there: `numpy()`, an index from the host,
a sum over both. What a GPU would compute is computed by the CPU, so a run has the CPU's bits.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
_aten: Any = torch.ops.aten
_COPIES = (_aten.copy_.default, _aten._foreach_copy_.default)


class OnGpu(torch.Tensor):
    """A tensor of a pretended GPU, over one of the CPU. Only torch's own code below Python sees where it is."""

    inner: Tensor
    gpu: torch.device

    @staticmethod
    def __new__(cls, inner: Tensor, gpu: torch.device) -> OnGpu:
        made: OnGpu = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=CPU, requires_grad=False,
        )  # fmt: skip
        made.inner, made.gpu = inner, gpu
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnGpu({self.inner!r}, {self.gpu})"

    @classmethod
    def __torch_function__(
        cls, func: Any, kinds: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func in _ANSWERS:
            return _ANSWERS[func](*args, **options)
        return super().__torch_function__(func, kinds, args, options)  # type: ignore[no-untyped-call]

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, kinds: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return computed(func, args, dict(kwargs or {}))


def _to(tensor: Tensor, *args: Any, **options: Any) -> Tensor:
    named = [each for each in args if isinstance(each, str | torch.device)] + [options.pop("device", None)]
    here = getattr(tensor, "gpu", CPU)
    device = _numbered(next((each for each in named if each is not None), here))
    rest = tuple(each for each in args if isinstance(each, torch.dtype | Tensor))
    copies, dtype = options.pop("copy", False), options.pop("dtype", None)
    rest = rest if dtype is None else (dtype,)
    if device.type == "cpu":
        tensor = _inside(tensor.detach()).clone()
    elif device != here:
        tensor = OnGpu(_inside(tensor.detach()).clone(), device)
    elif copies:
        tensor = tensor.clone()
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.to(*rest) if rest else tensor


def _numbered(device: str | torch.device) -> torch.device:
    device = torch.device(device)
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


def _give_data(tensor: Any, value: Any) -> None:
    tensor.inner, tensor.gpu = value.inner, value.gpu
    with torch._C.DisableTorchFunctionSubclass():
        tensor.data = value


def _refuse(tensor: Tensor, *args: Any, **options: Any) -> Any:
    raise TypeError(f"can't convert {tensor.device} device type tensor to numpy. Use Tensor.cpu() first")


_ANSWERS: dict[Any, Any] = {
    Tensor.device.__get__: lambda tensor: tensor.gpu,  # type: ignore[attr-defined]
    Tensor.is_cuda.__get__: lambda tensor: True,  # type: ignore[attr-defined]
    Tensor.get_device: lambda tensor: tensor.gpu.index,
    Tensor.data.__get__: lambda tensor: OnGpu(tensor.inner, tensor.gpu),  # type: ignore[attr-defined]
    Tensor.data.__set__: _give_data,  # type: ignore[attr-defined]
    Tensor.to: _to,
    Tensor.cpu: lambda tensor: _to(tensor, CPU),
    Tensor.tolist: lambda tensor: tensor.inner.tolist(),
    Tensor.untyped_storage: lambda tensor: tensor.inner.untyped_storage(),
    Tensor.data_ptr: lambda tensor: tensor.inner.data_ptr(),
    Tensor.numpy: _refuse,
    Tensor.__array__: _refuse,
}


def computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operation on the CPU, if all lie on one device; its results lie there too, unless another is asked for."""
    asked = kwargs.get("device")
    if asked is not None:
        kwargs["device"] = CPU
        kwargs.pop("pin_memory", None)
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    ours = [each.gpu for each in tensors if isinstance(each, OnGpu)]
    found_on = {*ours, *(CPU for each in tensors if not isinstance(each, OnGpu) and each.dim())}
    if func not in _COPIES and ours and len(found_on) > 1:
        names = " and ".join(sorted(map(str, found_on)))
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found {names}")
    found = func(*tree_map(_inside, args), **tree_map(_inside, kwargs))
    if func in _COPIES:
        return args[0] if func._schema.returns else None
    there = asked if asked is not None else ours[0] if ours else CPU
    if there.type == "cpu":
        return found
    wrapped = tree_map(lambda each: OnGpu(each, _numbered(there)) if isinstance(each, Tensor) else each, found)
    return wrapped if asked is not None else return_and_correct_aliasing(func, args, kwargs, wrapped)


def _inside(value: Any) -> Any:
    return value.inner if isinstance(value, OnGpu) else value


class _Devices(TorchDispatchMode):
    """Inside, what is made on cuda, or moved there, is a tensor of the pretended GPU."""

    def __torch_dispatch__(
        self, func: Any, kinds: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        device = options.get("device")
        if (device is not None and device.type == "cuda") or any(issubclass(each, OnGpu) for each in kinds):
            return computed(func, args, options)
        return func(*args, **options)


@contextlib.contextmanager
def gpus(count: int) -> Iterator[None]:
    """So many are there."""
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # keeps a parameter what it is, as CUDA does
    generators, current = tuple(torch.Generator() for _ in range(count)), [0]
    answers: dict[str, Any] = {
        "device_count": lambda: count, "is_available": lambda: True, "is_initialized": lambda: True,
        "init": lambda: None, "_lazy_init": lambda: None, "is_bf16_supported": lambda: True,
        "set_device": lambda device: current.append(getattr(device, "index", device)),
        "current_device": lambda: current[-1], "synchronize": lambda device=None: None,
        "default_generators": generators, "get_rng_state_all": lambda: [each.get_state() for each in generators],
        "set_rng_state_all": lambda states: list(map(torch.Generator.set_state, generators, states)),
        "mem_get_info": lambda device=None: (2**40, 2**40),
        "get_device_properties": lambda gpu: types.SimpleNamespace(name="pretended", total_memory=2**40),
    }  # fmt: skip
    try:
        moved = mock.patch.object(Tensor, "cuda", lambda tensor, *args, **options: tensor.to(_numbered("cuda")))
        with mock.patch.multiple(torch.cuda, **answers), moved, _Devices():
            yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)
