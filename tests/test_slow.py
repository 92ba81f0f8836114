"""What `make test-fast` leaves out, and what it never does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import slow

ROOT = Path(__file__).parents[1]
TOOK = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.floats(0.0, 100.0)).map(Counter)


def test_what_is_never_left_out_exists_and_is_not_in_the_list() -> None:
    for name in slow.ALWAYS:
        file, _, function = name.partition("::")
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), "it has another name now"
    assert not slow.ALWAYS & slow.listed()


@given(TOOK, st.floats(0.0, 200.0))
def test_the_quickest_are_kept_as_long_as_there_is_time(seconds: Counter[str], within_s: float) -> None:
    left_out = set(slow.slowest(seconds, within_s))
    kept = set(seconds) - left_out
    assert sum(seconds[name] for name in kept) <= within_s + 1e-6
    assert max((seconds[name] for name in kept), default=0.0) <= min(
        (seconds[name] for name in left_out), default=float("inf")
    )


def test_a_function_is_listed_without_its_parameters(request: pytest.FixtureRequest) -> None:
    assert slow.function("tests/a/test_b.py::test_c[x-y[0]]") == "tests/a/test_b.py::test_c"
    assert slow.function("tests/a/test_b.py::test_c@group") == "tests/a/test_b.py::test_c"
    assert slow.function(request.node.nodeid).endswith("::test_a_function_is_listed_without_its_parameters")


def test_what_is_listed_is_marked(request: pytest.FixtureRequest) -> None:
    marked = {slow.function(item.nodeid) for item in request.session.items if item.get_closest_marker("slow")}
    assert marked == {slow.function(item.nodeid) for item in request.session.items} & slow.listed()
