"""One worker computes the bits of a plain PyTorch loop, for models that people train."""

from __future__ import annotations

import pytest
import torch

from tests.tasks.against_plain_pytorch import CASES, Case, difference, plain
from tests.whole import sample


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.model)
def test_one_simulated_worker_has_the_bits_of_a_plain_loop(case: Case) -> None:
    before, after = plain(case)
    assert not all(map(torch.equal, before, after)), "nothing was trained, and nothing compared"
    assert difference(case, "sim") == 0.0


@pytest.mark.parametrize("case", sample(CASES, 5), ids=lambda case: case.model)
def test_one_real_worker_has_the_bits_of_a_plain_loop(case: Case) -> None:
    assert difference(case, "process") == 0.0
