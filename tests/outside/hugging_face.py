"""Causal models of Hugging Face as tasks of one's own: GPT-2 and Llama, from a configuration; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

GPT2 = GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=2, n_head=2)
LLAMA = LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=16,
)  # fmt: skip


class Gpt2:
    """GPT-2 (Radford et al. 2019) with two layers, with dropout, and with its embedding as output layer."""

    def model(self, seed: int) -> nn.Module:
        return GPT2LMHeadModel(GPT2)

    def batch(self, worker: int, workers: int, seed: int, step: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(10_000 * (97 * seed + worker) + step)
        ids = torch.randint(8, (4, 12), generator=generator)
        return {"input_ids": ids, "labels": ids}

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Any:
        return model(**batch).loss

    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "test", [self.batch(99, 1, 0, step) for step in range(2)]


class Llama(Gpt2):
    """Llama (Touvron et al. 2023) with two layers and grouped queries."""

    def model(self, seed: int) -> nn.Module:
        return LlamaForCausalLM(LLAMA)
