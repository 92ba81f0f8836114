"""The generators that somebody's code draws from without being given one: Python's, numpy's and torch's.

They are global, and torch has one for each device. Whoever calls such code seeds all of them, and puts them back.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch


def seed_all(number: int) -> None:
    """A state of each that depends on the number alone (63 bits)."""
    random.seed(number)
    np.random.seed([number & 0xFFFFFFFF, number >> 32])
    torch.manual_seed(number)


def generators_of(device: torch.device) -> Sequence[torch.Generator]:
    """Torch's that a model on that device draws from: the host's, and on a GPU that GPU's, as dropout does."""
    if device.type != "cuda":
        return (torch.default_generator,)
    torch.cuda.init()  # type: ignore[no-untyped-call]  # before which there are none
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.default_generator, torch.cuda.default_generators[index]


def seed_with(generators: Sequence[torch.Generator], number: int) -> None:
    """The same, but of torch's generators these alone: before each minibatch, where all of them take too long."""
    for each in generators:
        each.manual_seed(number)
    random.seed(number)
    np.random.seed([number & 0xFFFFFFFF, number >> 32])


@contextlib.contextmanager
def preserving_generators() -> Iterator[None]:
    """Whatever is drawn or seeded inside, all of them come out as they went in."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if devices:
            torch.cuda.set_rng_state_all(devices)
