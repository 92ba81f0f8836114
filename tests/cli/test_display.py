"""What is shown while a run goes on: the newest numbers, the share of the budget and the time that is left."""

from __future__ import annotations

import io
import math
import time
from typing import Any

import pytest
from rich.console import Console

from asgd_lab.app import display, progress_display
from asgd_lab.backends.outcome import Progress, WorkerLook
from asgd_lab.scenario import Scenario, presets


def scenario(**changes: Any) -> Scenario:
    plain = {
        "name": "shown",
        "task": {"name": "quadratic", "curvature": [1.0]},
        "algorithm": {"name": "asgd", "n_sync": 1},
        "budget": {"minibatches": 100},
        "backend": {"name": "process"},
    }
    return Scenario.model_validate(plain | changes)


def progress(**changes: Any) -> Progress:
    numbers = {"seconds": 2.0, "version": 10, "minibatches": 50, "staleness": 3, "loss": 0.25}
    return Progress(**(numbers | changes))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The host's time, which a test sets."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_share_is_of_the_part_of_the_budget_that_is_nearest_to_its_end() -> None:
    pace = progress_display.Pace(scenario(budget={"minibatches": 100, "updates": 11, "seconds": 8.0}))
    assert pace.share(progress()) == 10 / 11
    assert pace.share(progress(seconds=9.0)) == 1.0


def test_a_budget_of_an_error_alone_has_no_share() -> None:
    digits = {"name": "classification", "dataset": "digits"}
    known = scenario(task=digits, budget={"target_error": 0.1})
    line = progress_display.numbers(known, progress(), progress_display.Pace(known))
    assert "budget" not in line
    assert "left" not in line


def test_the_time_left_is_told_by_the_rate_since_the_first_look(clock: list[float]) -> None:
    pace = progress_display.Pace(scenario())
    assert pace.left_s(progress(seconds=0.0, minibatches=0)) is None
    assert pace.left_s(progress(minibatches=10)) is None
    clock[0] += 4.0
    assert pace.left_s(progress(minibatches=30)) == pytest.approx(14.0)


def test_a_line_has_the_numbers_that_the_backend_knows() -> None:
    known = scenario()
    line = progress_display.numbers(known, progress(), progress_display.Pace(known))
    assert line == "2.0 s, 50 minibatches, 25.0 minibatches/s, staleness 3, loss 0.25, 50% of the budget"
    line = progress_display.numbers(known, progress(staleness=-1, loss=math.nan), progress_display.Pace(known))
    assert line == "2.0 s, 50 minibatches, 25.0 minibatches/s, 50% of the budget"


def test_without_a_terminal_there_is_a_line_now_and_then(clock: list[float]) -> None:
    console = Console(file=io.StringIO(), width=40)
    with progress_display.watching(console, scenario(), live=False) as watch:
        watch(progress(seconds=0.0))
        watch(progress(minibatches=0))  # no push has arrived
        for minibatches in range(10, 22):
            watch(progress(minibatches=minibatches))
            clock[0] += 1.0
    lines = written(console).splitlines()
    assert [line.split(", ")[1] for line in lines] == ["10 minibatches", "15 minibatches", "20 minibatches"]


@pytest.mark.parametrize(
    ("states", "shown"),
    [
        (["training", "pushing"], ["0 training 1,234 3 25% 0", "1 pushing 1,234 3 25% 1"]),
        (["training"] * 16 + ["pushing"], ["1 pushing 16 training 136 restarts"]),
    ],
)
def test_a_terminal_shows_a_bar_the_numbers_and_what_the_workers_do(states: list[str], shown: list[str]) -> None:
    looks = [WorkerLook(state, 1234, 3, 0.25, number) for number, state in enumerate(states)]
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    with progress_display.watching(console, scenario(), live=True) as watch:
        watch(progress(workers=looks))
    drawn = [line.strip() for line in written(console).splitlines()]
    assert any(line.endswith("━") for line in drawn)
    assert any(line.startswith("2.0 s, 50 minibatches") for line in drawn)
    assert set(shown) <= {" ".join(line.split()) for line in drawn}


def test_an_emulated_run_whose_devices_were_late_is_called_invalid() -> None:
    summary = {
        **{"workers": 1, "backend": "process", "seed": 0, "makespan_s": 1.0, "minibatches": 9, "updates": 9},
        **{"minibatches_per_s": 9.0, "dropped": 0, "staleness": {"mean": 0.0, "max": 0}, "final": {}},
        **{"utilisation": {"workers": 1.0, "server": 0.0}, "emulated": True},
    }
    for late, verdict in [(0.005, False), (0.03, True)]:
        console = Console(file=io.StringIO(), width=120)
        console.print(display.result(summary | {"lateness": {"judged": late}}))
        assert "1 worker on emulated devices" in written(console)
        assert ("the measurement is invalid" in written(console)) == verdict


def test_a_simulations_result_says_where_time_goes_and_what_is_busy() -> None:
    names = {"server": 0.5, "link down": 0.81, "link up": 0.99} | {f"host {host} up": 0.9 for host in range(4)}
    summary = {
        **{"workers": 2, "backend": "sim", "seed": 0, "makespan_s": 1.0, "minibatches": 9, "updates": 9},
        **{"minibatches_per_s": 9.0, "dropped": 0, "staleness": {"mean": 0.0, "max": 0}, "final": {}},
        **{"utilisation": {"workers": 0.25, "server": 0.5}},
        "time": {"mean": {"compute": 0.25, "link": 0.7, "queue": 0.049, "idle": 0.001}},
        "resources": [{"name": name, "utilisation": busy} for name, busy in names.items()],
    }
    console = Console(file=io.StringIO(), width=120)
    console.print(display.result(summary))
    lines = [" ".join(line.split()) for line in written(console).splitlines()]
    assert "workers' time link 70%, compute 25%, queue 5%" in lines
    assert "nearly saturated link up 99%, host 0 up 90%, host 1 up 90%, host 2 up 90% and 2 more" in lines


@pytest.mark.parametrize(("width", "widest"), [(80, 80), (160, display.PROSE_WIDTH)])
def test_a_preset_fits_the_terminal_and_keeps_each_number_on_one_line(width: int, widest: int) -> None:
    for name in presets.names():
        preset, text = presets.read(name), io.StringIO()
        Console(file=text, width=width).print(display.grades(), display.machine(preset))
        lines = text.getvalue().splitlines()
        assert max(map(len, lines)) <= widest
        for key, _ in presets.leaves(preset.hardware):
            assert any(line.startswith(f"    {key} = ") for line in lines)
