"""The layout of the flat vector."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asgd_lab.errors import ProtocolError
from asgd_lab.tasks.flat import Layout

shapes = st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=1, max_size=8)


@given(shapes)
def test_parameters_start_at_64_bytes_and_never_overlap(drawn: list[list[int]]) -> None:
    layout = Layout.of(drawn)
    ends = [start + math.prod(shape) for start, shape in zip(layout.starts, layout.shapes, strict=True)]
    assert all(start * 4 % 64 == 0 for start in layout.starts)
    assert all(0 <= start - end < 16 for end, start in zip([0, *ends], layout.starts, strict=False))
    assert layout.size == ends[-1]


@given(shapes)
def test_views_are_the_vector(drawn: list[list[int]]) -> None:
    layout = Layout.of(drawn)
    vector = torch.zeros(layout.size)
    for number, view in enumerate(layout.views(vector), start=1):
        assert view.is_contiguous()
        view.fill_(number)
    for number, (start, shape) in enumerate(zip(layout.starts, layout.shapes, strict=True), start=1):
        assert vector[start : start + math.prod(shape)].eq(number).all()
    assert vector.count_nonzero() == sum(math.prod(shape) for shape in drawn)  # the gaps stay zero


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        (torch.zeros(39), r"\(39,\)"),
        (torch.zeros(40, dtype=torch.float64), "float64"),
        (torch.zeros(80)[::2], "strided"),
        (torch.zeros(41)[1:], "64-byte boundary"),
    ],
)
def test_a_vector_that_does_not_fit_is_refused(vector: torch.Tensor, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        Layout.of([(3, 5), (24,)]).views(vector)
