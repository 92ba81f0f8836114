"""A decoder-only transformer (Vaswani et al. 2017; Radford et al. 2019), in one piece to read.

Layer norms stand before attention and MLP, the embedding is also the output layer (Press and Wolf 2017), and weights
start as in GPT-2. Shape letters: B sequences in a minibatch, T tokens of one, C the width, H heads, V known tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Causal self-attention with H heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inside = nn.Linear(width, 3 * width)
        self.outside = nn.Linear(width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, T, C): each place attends to itself and to the places before it."""
        samples, length, width = inputs.shape
        parts = self.inside(inputs).view(samples, length, 3, self.heads, width // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)  # each (B, H, T, C / H)
        found = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        mixed: Tensor = self.outside(found.transpose(1, 2).reshape(samples, length, width))
        return mixed


class Block(nn.Module):
    """Attention between places, then an MLP of two layers at each place; each is added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before_attention, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.before_mlp = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs + self.attention(self.before_attention(inputs))
        found: Tensor = inputs + self.narrow(functional.gelu(self.wide(self.before_mlp(inputs))))
        return found


class Transformer(nn.Module):
    """The scores of every next token."""

    def __init__(self, tokens: int, context: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(tokens, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue  # biases and norms start as torch has them: zeroed below, or ones
            is_last = name.endswith(("outside.weight", "narrow.weight"))  # what a block adds to its inputs
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if is_last else 0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T, V) of the ids (B, T)."""
        inputs = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        return functional.linear(self.norm(self.blocks(inputs)), self.tokens.weight)
