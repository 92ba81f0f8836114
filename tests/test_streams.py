"""Streams are pure functions whose values no platform, process or release may change: recorded runs rest on them."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asgd_lab.streams import generator, key

words = st.integers(0, 2**63 - 1)


def test_keys_are_pinned() -> None:
    assert (key(0), key(7, 1, 2), key(7, "order", 3, 4)) == PINNED


def test_keys_do_not_collide_where_a_run_counts() -> None:
    counted = itertools.product(range(5), ("order", "model"), range(40), range(200))
    keys = {key(seed, purpose, worker, step) for seed, purpose, worker, step in counted}
    assert len(keys) == 5 * 2 * 40 * 200


@given(words, st.lists(st.one_of(words, st.text(max_size=8)), max_size=4))
def test_a_key_has_63_bits(seed: int, parts: list[int | str]) -> None:
    assert 0 <= key(seed, *parts) < 2**63
    assert key(seed, *parts) == key(seed, *parts)


@given(words, words, words)
def test_the_place_and_the_number_of_parts_count(seed: int, one: int, other: int) -> None:
    keys = [key(seed, one, other), key(seed, one), key(seed), key(seed, one, other, 0)]
    if one != other:
        keys.append(key(seed, other, one))
    if one != seed:
        keys.append(key(one, seed, other))
    assert len(set(keys)) == len(keys)


def test_neighbouring_keys_differ_in_half_of_their_bits() -> None:
    flips = [
        (key(1, worker, step) ^ key(1, worker, step + 1)).bit_count() for worker in range(50) for step in range(50)
    ]
    assert abs(np.mean(flips) - 31.5) < 0.5  # the standard error is 0.08
    assert min(flips) > 8


def test_a_generator_is_its_key() -> None:
    first = generator(3, "order", 1, 2).standard_normal(5)
    assert np.array_equal(first, generator(3, "order", 1, 2).standard_normal(5))
    assert not np.array_equal(first, generator(3, "order", 1, 3).standard_normal(5))


def test_streams_of_neighbours_are_uncorrelated() -> None:
    draws = np.array([generator(0, worker, step).standard_normal(100) for worker in range(10) for step in range(10)])
    correlations = np.corrcoef(draws)[np.triu_indices(100, 1)]
    assert abs(correlations.mean()) < 0.005
    assert abs(correlations.std() - 0.1) < 0.01


PINNED = (6707259585807997655, 4187385484051951389, 7186308652869282334)
