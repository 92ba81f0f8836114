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

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        made: OnGpu = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=CPU, requires_grad=False,
        )  # fmt: skip
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnGpu({self.inner!r})"

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
    device = torch.device(next((each for each in named if each is not None), GPU))
    rest = tuple(each for each in args if isinstance(each, torch.dtype | Tensor))
    copies, dtype = options.pop("copy", False), options.pop("dtype", None)
    rest = rest if dtype is None else (dtype,)
    if device.type == "cpu":
        tensor = _inside(tensor.detach()).clone()
    elif copies:
        tensor = tensor.clone()
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.to(*rest) if rest else tensor


def _give_data(tensor: Any, value: Any) -> None:
    tensor.inner = value.inner
    with torch._C.DisableTorchFunctionSubclass():
        tensor.data = value


def _refuse(tensor: Tensor, *args: Any, **options: Any) -> Any:
    raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")


_ANSWERS: dict[Any, Any] = {
    Tensor.device.__get__: lambda tensor: GPU,  # type: ignore[attr-defined]
    Tensor.is_cuda.__get__: lambda tensor: True,  # type: ignore[attr-defined]
    Tensor.get_device: lambda tensor: 0,
    Tensor.data.__get__: lambda tensor: OnGpu(tensor.inner),  # type: ignore[attr-defined]
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
    ours = [each for each in tensors if isinstance(each, OnGpu)]
    strange = [each for each in tensors if not isinstance(each, OnGpu) and each.dim()]
    if func not in _COPIES and ours and strange:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found cuda:0 and cpu")
    found = func(*tree_map(_inside, args), **tree_map(_inside, kwargs))
    if func in _COPIES:
        return args[0] if func._schema.returns else None
    if not (asked.type == "cuda" if asked is not None else ours):
        return found
    wrapped = tree_map(lambda each: OnGpu(each) if isinstance(each, Tensor) else each, found)
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
    generators = tuple(torch.Generator() for _ in range(count))
    answers: dict[str, Any] = {
        "device_count": lambda: count, "is_available": lambda: True, "is_initialized": lambda: True,
        "init": lambda: None, "_lazy_init": lambda: None, "set_device": lambda device: None,
        "current_device": lambda: 0, "synchronize": lambda device=None: None,
        "default_generators": generators, "get_rng_state_all": lambda: [each.get_state() for each in generators],
        "set_rng_state_all": lambda states: list(map(torch.Generator.set_state, generators, states)),
        "mem_get_info": lambda device=None: (2**40, 2**40),
        "get_device_properties": lambda gpu: types.SimpleNamespace(name="pretended", total_memory=2**40),
    }  # fmt: skip
    try:
        moved = mock.patch.object(Tensor, "cuda", lambda tensor, *args, **options: tensor.to(GPU))
        with mock.patch.multiple(torch.cuda, **answers), moved, _Devices():
            yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)
