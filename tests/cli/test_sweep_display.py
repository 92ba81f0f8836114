"""What is shown of a sweep: the points that are over, how far the others are, and what is left."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from asgd_lab.app.sweep_display import sweep_display
from tests.cli.test_display import clock, progress, scenario, written

__all__ = ["clock"]


def test_without_a_terminal_there_is_a_line_now_and_then(clock: list[float]) -> None:
    console = Console(file=io.StringIO(), width=40, get_time=lambda: clock[0])
    with sweep_display(console, 4, 1, live=False) as shown:
        for name in ("a", "b"):
            shown.look(name, scenario(), progress(seconds=0.0, minibatches=0, version=0))
        assert written(console) == "", "nothing has happened yet"
        for minibatches in range(0, 60, 10):
            shown.look("a", scenario(), progress(minibatches=minibatches))
            clock[0] += 1.0
        shown.over("a")
        clock[0] += 4.0
        shown.look("b", scenario(), progress(minibatches=50))
    assert written(console).splitlines() == [
        "running: a 0%; b 0%",
        "running: a 50%; b 0%; 0:00:25 left",
        "running: b 50%; 0:00:10 left",
    ]


def test_a_terminal_shows_a_bar_for_the_sweep_and_one_a_running_point() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    with sweep_display(console, 3, 0, live=True) as shown:
        shown.look("workers=1", scenario(), progress(minibatches=0))
        shown.over("workers=1")
        shown.look("workers=2", scenario(), progress(minibatches=50))
        shown.bars.refresh()
    sweep, point = [line.split() for line in written(console).splitlines() if "━" in line][-2:]
    assert sweep[0].endswith("1/3")
    assert (sweep[1], sweep[3]) == ("points", "50%")
    assert (point[0], point[2]) == ("workers=2", "50%")


def test_a_point_that_only_an_error_can_end_has_no_share(clock: list[float]) -> None:
    console = Console(file=io.StringIO(), width=40)
    known = scenario(task={"name": "classification", "dataset": "digits"}, budget={"target_error": 0.1})
    with sweep_display(console, 1, 0, live=False) as shown:
        shown.look("a", known, progress())
    assert written(console) == "running: a\n"


@pytest.mark.parametrize("done", [0, 2])
def test_what_was_done_before_counts_as_over(done: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    with sweep_display(console, 3, done, live=True):
        pass
    assert f"{done}/3 points" in written(console)
