"""Whole runs of the command line under one random blow each: none hangs, leaves anything, or loses a bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.whole import sample

from .chaos import case, survive

CASES, SEED = 60, 1


@pytest.mark.parametrize("number", sample(range(CASES), 1))
def test_a_run_that_is_hit_at_a_random_moment_ends_cleanly_and_comes_to_the_same_bits(
    tmp_path: Path, number: int
) -> None:
    found = survive(case(SEED, number), tmp_path)
    assert found.faults == [], case(SEED, number)
