"""Minibatches of many replicas of the transformer in one pass, stacked by hand.

Attention on a CPU has no batching rule for `torch.func.vmap`. So replicas are folded into attention's batch, each
linear layer is one `baddbmm`, and the tables of embeddings are one table. A norm's scale and shift are multiplied into
the next layer's weights: these are smaller than the activations.

Shape letters: R replicas, B sequences of one, T tokens of a sequence, C the width, V known tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from asgd_lab.task_keys.text import TextKeys
from asgd_lab.tasks.base import Batch
from asgd_lab.tasks.batched import StackedBatch
from asgd_lab.tasks.batching_checks import check_parts, check_steps, examine
from asgd_lab.tasks.clipping_and_schedules import row_adjuster
from asgd_lab.tasks.network import NetworkLearner
from asgd_lab.tasks.network_task import NetworkTask
from asgd_lab.tasks.optimizers import optimizer


def batch(config: TextKeys, task: NetworkTask, device: torch.device) -> Batch:
    """A batch of the text task's learners on that device; a `ScenarioError` if the scenario has keys against it."""
    check_parts(
        {
            "a key local": bool(config.local),
            f"precision {config.precision}": config.precision != "float32",
            "a fused optimizer, and computes on a GPU": bool(config.optimizer.options.get("fused"))
            and device.type == "cuda",
        }
    )
    minibatches = [task.batches(worker, device)(0) for worker in range(2)]
    stack, kept_bytes = examine(task.network, *_together(minibatches), functools.partial(outputs, config.heads))
    found = StackedBatch(
        stack, kept_bytes, _minibatches, optimizer(config.optimizer), device, row_adjuster(config.schedule, config.clip)
    )
    check_steps(task.network, task.tried_learner, found, device)
    return found


def _minibatches(wanted: Sequence[tuple[NetworkLearner, int]]) -> tuple[Tensor, Tensor]:
    return _together([learner.batches(step) for learner, step in wanted])


def _together(minibatches: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Ids and next ids (B, R, T)."""
    ids, following = zip(*minibatches, strict=True)
    return torch.stack(ids, 1), torch.stack(following, 1)


def outputs(heads: int, named: Mapping[str, Tensor], ids: Tensor) -> Tensor:
    """Scores (R, B, T, V) of the ids (B, R, T), with the parameters of `transformer.Transformer`, each (R, ...)."""
    samples, replicas, length = ids.shape
    tokens = named["tokens.weight"]
    known, width = tokens.shape[1:]
    rows = known * torch.arange(replicas, device=ids.device).view(-1, 1, 1)
    inputs = functional.embedding(ids.transpose(0, 1) + rows, tokens.flatten(0, 1))
    inputs = (inputs + named["places.weight"][:, None, :length]).flatten(1, 2)  # (R, B·T, C)

    def linear(inputs: Tensor, name: str) -> Tensor:
        weight, bias = named[f"{name}.weight"], named[f"{name}.bias"]
        return torch.baddbmm(bias.unsqueeze(1), inputs, weight.transpose(1, 2))

    def normed(inputs: Tensor, norm: str, weight: Tensor, bias: Tensor | None) -> Tensor:
        """A layer norm, then a linear layer."""
        scale, shift = named[f"{norm}.weight"], named[f"{norm}.bias"].unsqueeze(2)
        shifts = weight @ shift if bias is None else torch.baddbmm(bias.unsqueeze(2), weight, shift)  # (R, out, 1)
        scaled = (weight * scale.unsqueeze(1)).transpose(1, 2)
        return torch.baddbmm(shifts.transpose(1, 2), functional.layer_norm(inputs, (width,)), scaled)

    for layer in range(sum(name.endswith("attention.inside.weight") for name in named)):
        block = f"blocks.{layer}"
        inside = f"{block}.attention.inside"
        parts = normed(inputs, f"{block}.before_attention", named[f"{inside}.weight"], named[f"{inside}.bias"])
        parts = parts.view(replicas * samples, length, 3, heads, width // heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)  # each (R·B, H, T, C / H)
        found = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        found = found.transpose(1, 2).reshape(replicas, samples * length, width)
        inputs = inputs + linear(found, f"{block}.attention.outside")
        wide = normed(inputs, f"{block}.before_mlp", named[f"{block}.wide.weight"], named[f"{block}.wide.bias"])
        inputs = inputs + linear(functional.gelu(wide), f"{block}.narrow")
    return normed(inputs, "norm", tokens, None).view(replicas, samples, length, known)
