"""The generators that somebody's code draws from without being given one: Python's, numpy's and torch's.

They are global. Whoever calls such code seeds all of them, and puts them back.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def seed_all(number: int) -> None:
    """A state of each that depends on the number alone (63 bits)."""
    random.seed(number)
    np.random.seed([number & 0xFFFFFFFF, number >> 32])
    torch.manual_seed(number)


def seed_with(generator: torch.Generator, number: int) -> None:
    """The same, but of torch's generators this one alone: before each minibatch, where the others take too long."""
    generator.manual_seed(number)
    random.seed(number)
    np.random.seed([number & 0xFFFFFFFF, number >> 32])


@contextlib.contextmanager
def untouched() -> Iterator[None]:
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
