"""One network for many parameter vectors at once: the loss and gradient of each replica, in a single pass over a stack.

Pure functions of their arguments: no learner, no optimizer and no data order in this file. `torch.func.vmap` maps the
model's own forward pass over the replicas. Two measures make that pay on a CPU:

- Tensors would be copied between vmap's layout and that of the kernels. So replicas are folded into the channels of
  images, in channels-last memory: a convolution gets more groups, and poolings need no change.
- A small network's time is the overhead of its calls. So forward and backward pass are recorded once for each height
  of the stack, and later calls run the recorded aten calls, without autograd and without vmap.

Shape letters: R replicas in a stack, B samples in a minibatch, P elements of the weights, without gaps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from asgd_lab.tasks.aten_graph import record

Step = tuple[Tensor, Tensor, Tensor]
"""Gradients (R, P), mean losses (R,), wrong answers (R,)."""
Outputs = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""Maps parameters by name, each (R, ...), and inputs (B, R, ...) to outputs (R, B, ..., classes)."""


@final
class Stack:
    """The network with rows (R, P) in place of its weights; `others` are the parameters without a gradient."""

    def __init__(self, model: nn.Module, weights: Sequence[str], outputs: Outputs | None = None) -> None:
        """`outputs` stands for the model's forward pass; None: the pass itself, mapped."""
        parameters = dict(model.named_parameters())
        self.weights = tuple(weights)
        self.others = tuple(name for name in parameters if name not in self.weights)
        self.shapes = tuple(parameters[name].shape for name in self.weights)
        self.other_shapes = tuple(parameters[name].shape for name in self.others)
        self.sizes = [shape.numel() for shape in self.shapes]
        self._outputs = functools.partial(_mapped, model) if outputs is None else outputs
        self._records: dict[int, Callable[..., tuple[Tensor, ...]]] = {}

    def step(self, rows: Tensor, others: Sequence[Tensor], inputs: Tensor, labels: Tensor) -> Step:
        """Gradients, losses and wrong answers for rows (R, P), others (R, ...), inputs (B, R, ...), labels (B, R, ...).

        All are contiguous. Only R may differ between calls; the first call with each R records, and takes longer.
        """
        arguments = (rows, inputs, labels, *others)
        recorded = self._records.get(len(rows))
        if recorded is None:
            with torch.enable_grad():
                self._records[len(rows)], (gradients, losses, wrong) = record(self._step, arguments)
        else:
            with torch.no_grad():
                gradients, losses, wrong = recorded(*arguments)
        return gradients, losses, wrong

    def _step(self, rows: Tensor, inputs: Tensor, labels: Tensor, *others: Tensor) -> Step:
        pieces = zip(torch.split(rows, self.sizes, 1), self.shapes, strict=True)
        weights = [piece.detach().view(len(rows), *shape).requires_grad_() for piece, shape in pieces]
        named = dict(zip((*self.weights, *self.others), (*weights, *others), strict=True))
        outputs = self._outputs(named, inputs)
        classes = labels.transpose(0, 1).contiguous()
        losses = functional.cross_entropy(outputs.flatten(0, -2), classes.flatten(), reduction="none")
        means = losses.view(len(rows), -1).mean(1)
        gradients = torch.autograd.grad(means.sum(), weights)
        wrong = outputs.detach().argmax(-1).ne(classes).flatten(1).sum(1)
        return torch.cat([gradient.reshape(len(rows), -1) for gradient in gradients], 1), means.detach(), wrong


def _mapped(model: nn.Module, named: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """The outputs (R, B, ...) of the model's own forward pass."""

    def outputs_of(named: dict[str, Tensor], inputs: Tensor) -> Any:
        return functional_call(model, named, (inputs,))

    with _Folding():
        outputs: Tensor = vmap(outputs_of, in_dims=(0, 1))(dict(named), inputs)
    return outputs


class _Folded(torch.autograd.Function):
    """A function of images that treats all channels, or groups of them, alike; it exists for its vmap rule."""

    @staticmethod
    def forward(function: Callable[..., Tensor], images: Tensor, *weights: Tensor | None) -> Tensor:
        """The function without replicas, for images that are a constant of the model."""
        return function(images, *weights, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save nothing: autograd sees the calls of the vmap rule."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], function: Callable[..., Tensor], images: Tensor,
        *weights: Tensor | None,
    ) -> tuple[Tensor, int]:  # fmt: skip
        """Call the function with images (B, R, C, H, W) folded to (B, R·C, H, W)."""
        replicas = info.batch_size

        def replicated(tensor: Tensor, dim: int | None, to: int) -> Tensor:
            if dim is None:
                return tensor.unsqueeze(to).expand(*tensor.shape[:to], replicas, *tensor.shape[to:])
            return tensor.movedim(dim, to)

        folded = replicated(images, in_dims[1], 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        rows = [
            None if weight is None else replicated(weight, dim, 0).flatten(0, 1)
            for weight, dim in zip(weights, in_dims[2:], strict=True)
        ]
        made = function(folded, *rows, replicas)
        return made.view(len(made), replicas, -1, *made.shape[2:]), 1


def _folded(images: Tensor, function: Callable[..., Tensor], *weights: Tensor | None) -> Tensor:
    """Call `function` with images, weights and the factor by which folding multiplies the groups of channels."""
    if images.dim() != 4:
        return function(images, *weights, 1)
    made: Tensor = _Folded.apply(function, images, *weights)  # type: ignore[no-untyped-call]
    return made


def _conv2d(
    images: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Tensor:  # fmt: skip
    def convolved(images: Tensor, weight: Tensor, bias: Tensor | None, replicas: int) -> Tensor:
        return functional.conv2d(images, weight, bias, stride, padding, dilation, groups * replicas)

    return _folded(images, convolved, weight, bias)


def _group_norm(
    images: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    def normalised(images: Tensor, weight: Tensor | None, bias: Tensor | None, replicas: int) -> Tensor:
        return functional.group_norm(images, num_groups * replicas, weight, bias, eps)

    return _folded(images, normalised, weight, bias)


def _pooled(pool: Callable[..., Tensor], images: Tensor, *arguments: Any, **options: Any) -> Tensor:
    return _folded(images, lambda images, _: pool(images, *arguments, **options))


def _view(tensor: Tensor, *shape: Any) -> Tensor:
    """`Tensor.view` for folded images too, which are not contiguous: models flatten by `view`."""
    if any(isinstance(each, torch.dtype) for each in shape):
        return tensor.view(*shape)
    return tensor.reshape(*shape)


_POOLINGS = (functional.max_pool2d, torch.max_pool2d, functional.avg_pool2d, functional.adaptive_avg_pool2d)
_RULES: Mapping[Any, Callable[..., Tensor]] = {
    torch.conv2d: _conv2d,
    functional.group_norm: _group_norm,
    torch.Tensor.view: _view,
    **{pool: functools.partial(_pooled, pool) for pool in _POOLINGS},
}


class _Folding(TorchFunctionMode):
    """A mode in which the model's operations on batches of images follow the rules above."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # Calls with keywords alone are left to vmap, which is as correct and slower.
        return (_RULES.get(func, func) if args else func)(*args, **kwargs or {})
