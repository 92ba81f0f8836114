"""Random streams as pure functions of a seed and a purpose: no generator outlives its use.

Callers name the purpose of their random numbers, as in `generator(seed, "order", worker, epoch)`. So no generator's
state is ever saved, and a resumed, replayed or restarted run draws the same numbers as the first one.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np

_MASK = 2**64 - 1


@functools.cache
def _word(text: str) -> int:
    """Sixty-four bits of a string, the same in every process (Python's own `hash` is salted)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def key(seed: int, *parts: int | str) -> int:
    """Sixty-three bits that depend on the seed, on every part and on its place.

    It ends in SplitMix64's mixer (Steele et al. 2014). The parts are Python's own integers, not numpy's.
    """
    state = 0
    for part in (seed, *parts):
        word = _word(part) if isinstance(part, str) else part
        state = (state + word + 0x9E3779B97F4A7C15) * 0xD1342543DE82EF95 & _MASK
        state ^= state >> 32
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
    return (state ^ state >> 31) >> 1


def generator(seed: int, *parts: int | str) -> np.random.Generator:
    """A numpy generator of a stream of its own (Philox, a counter-based generator)."""
    return np.random.Generator(np.random.Philox(key=key(seed, *parts)))
