from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asgd_lab.errors import ScenarioError
from asgd_lab.figures.meanings import HEADINGS
from asgd_lab.figures.style import contrast, ink
from asgd_lab.figures.where_time_goes import COLORS, over_time, time_shares
from tests.backends.scenarios import TIMING
from tests.backends.scenarios import run as execute
from tests.figures.drawn import labels, overflows


def spent(path: Path, **seconds: float) -> Path:
    """A run whose workers spent their time like this."""
    path.mkdir(parents=True)
    mean = dict.fromkeys(COLORS, 0.0) | seconds
    (path / "summary.json").write_text(json.dumps({"time": {"mean": mean, "per_worker": [mean]}}), encoding="utf-8")
    return path


def simulated(path: Path, **parts: Any) -> Path:
    parts = {"task": TIMING, "backend": "sim", "workers": 4, "budget": {"updates": 60}} | parts
    execute(path, **parts)
    return path


def test_shares_are_stacked_to_the_whole_and_every_heading_is_named(tmp_path: Path) -> None:
    runs = {
        1: spent(tmp_path / "a", compute=2, link=6, queue=1.8, gate=0.2),
        100: spent(tmp_path / "b", compute=9.7, link=0.1, queue=0.1, gate=0.1),
        10: spent(tmp_path / "c", compute=6, link=3, queue=0.9, gate=0.1),
    }
    fig = time_shares({"4 workers": runs})
    (axes,) = fig.axes
    # From the top of the bars down, thick or thin; what is nowhere has no colour at all.
    assert labels(fig) == [HEADINGS[name] for name in ("gate", "queue", "link", "compute")]
    assert axes.get_title(loc="left") == "4 workers\ncomputing 20% to 97% of the time"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "10", "100"]
    tops = [bar.get_y() + bar.get_height() for bar in axes.patches]  # type: ignore[attr-defined]
    assert max(tops) == pytest.approx(1)
    assert {text.get_text() for text in axes.texts} == {"20%", "60%", "18%", "97%", "30%", "9%"}
    assert overflows(fig) == []


def test_a_share_is_written_in_an_ink_that_can_be_read_on_its_colour() -> None:
    assert {*HEADINGS} == {*COLORS}
    for color in COLORS.values():
        assert contrast(ink(color), color) >= 4.5


def test_a_panel_for_every_label_and_replications_count_with_their_mean(tmp_path: Path) -> None:
    few = {n: spent(tmp_path / f"few-{n}", compute=n, staging=0.3, down=1) for n in (1, 10)}
    many = {n: [spent(tmp_path / f"many-{n}-{i}", compute=1 + 2 * i, staging=1) for i in (0, 1)] for n in (1, 10)}
    fig = time_shares({"2 workers": few, "8 workers": many, "one run": {"": few[1]}})
    assert len(fig.axes) == 3
    assert [axes.get_xlabel() != "" for axes in fig.axes] == [False, True, True]
    assert fig.axes[1].get_title(loc="left") == "8 workers\ncomputing 62% of the time"
    assert overflows(fig) == []


def test_a_run_that_was_measured_does_not_say_where_its_time_went(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ScenarioError, match="does not say where its time went"):
        time_shares({"a": {1: tmp_path}})
    with pytest.raises(ScenarioError, match="says nothing of servers and links"):
        over_time(tmp_path)


def test_servers_and_links_are_drawn_over_time_the_busiest_first(tmp_path: Path) -> None:
    hardware = {"link": {"bandwidth_bytes_per_s": 1e6, "shared": True}, "server": {"push_s": 0.002}}
    fig = over_time(simulated(tmp_path / "run", hardware=hardware))
    titles = [axes.get_title(loc="left") for axes in fig.axes]
    assert {title.split("\n")[0] for title in titles[:3]} == {"link up", "link down", "server"}
    busy = [int(title.split("\n")[1].split("%")[0]) for title in titles[:3]]
    assert busy == sorted(busy, reverse=True)
    assert all(title.endswith(" in the mean") for title in titles[3:])
    assert overflows(fig) == []


def test_of_many_resources_the_busiest_are_shown(tmp_path: Path) -> None:
    hardware = {"host": {"bandwidth_bytes_per_s": 1e6, "workers": 2}, "server": {"push_s": 0.001}}
    fig = over_time(simulated(tmp_path / "run", hardware=hardware, workers=8))
    assert fig.get_suptitle() == "The 5 busiest of 9"
    assert len(fig.axes) == 10
    assert overflows(fig) == []
