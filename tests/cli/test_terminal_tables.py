"""What a terminal is too narrow for: columns are left out and named, values never cut; a file gets everything."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.text import Text

from asgd_lab.app import display, progress_display
from asgd_lab.app.sweep_display import results, sweep_display
from asgd_lab.app.terminal_tables import Columns, Described, Pairs
from asgd_lab.catalogue import CATALOGUE
from asgd_lab.scenario import presets
from asgd_lab.sweep_tables import Group
from tests.cli.test_display import progress, scenario

WIDTHS = st.integers(40, 200)
WORDS = st.text("abz-=,.[]/ü漢", min_size=1, max_size=60).filter(lambda text: text.strip() == text)
VALUES = st.from_regex(r"[+-]?[0-9]{1,6}(\.[0-9]{1,4})?( ± [0-9]{1,4})?( saturated)?%?", fullmatch=True)
HEADINGS = st.lists(st.text("abz", min_size=1, max_size=9), min_size=1, max_size=3).map(" ".join)


def drawn(shown: RenderableType, width: int, **terminal: Any) -> list[str]:
    """Its lines, none of which is wider than the terminal."""
    text = io.StringIO()
    Console(file=text, width=width, color_system=None, **terminal).print(shown)
    lines = text.getvalue().splitlines()
    assert all(cell_len(line.rstrip()) <= width for line in lines), "a line is cut by the terminal"
    assert "…" not in text.getvalue()
    return lines


def rows_of(lines: list[str]) -> Iterator[list[str]]:
    """The cells between the lines of a table, folded ones put together; a row begins where there is a last cell."""
    found: list[list[str]] = []
    for line in lines:
        if line.startswith("│"):
            cells = [cell.strip() for cell in line.strip().strip("│").split("│")]
            if cells[-1]:
                found.append(cells)
            else:
                found[-1] = [one + more for one, more in zip(found[-1], cells, strict=True)]
    yield from found


@st.composite
def tables(draw: st.DrawFn) -> Columns:
    headings = draw(st.lists(HEADINGS, min_size=2, max_size=12, unique=True))
    row = st.tuples(WORDS, *(VALUES for _ in headings[1:]))
    return Columns(headings, draw(st.lists(row, min_size=1, max_size=4)), draw(st.permutations(headings[1:])))


@given(tables(), WIDTHS)
def test_at_any_width_each_value_is_whole_or_its_column_is_named_below(table: Columns, width: int) -> None:
    lines = drawn(table, width)
    below = " ".join(line for line in lines[max(i for i, line in enumerate(lines) if "└" in line) + 1 :])
    dropped = below.removeprefix("left out for want of width: ").split(", ") if below else []
    dropped = [" ".join(heading.split()) for heading in dropped]
    kept = [index for index, heading in enumerate(table.headings) if heading not in dropped]
    assert len(kept) + len(dropped) == len(table.headings)
    assert table.important[0] not in dropped
    spaced = [[str(row[index]) for index in kept] for row in table.rows]
    assert [[cell.replace(" ", "") for cell in row] for row in rows_of(lines)] == [
        [cell.replace(" ", "") for cell in row] for row in spaced
    ]
    for row in spaced:  # the name alone may be folded
        assert all(any(value in line for line in lines) for value in row[1:])


@given(tables())
def test_what_was_dropped_is_less_important_or_wider_than_what_was_kept(table: Columns) -> None:
    widths = [len(table._widths(width)) for width in (60, 100, 200, 10_000)]
    assert widths == sorted(widths), "a wider terminal shows no fewer columns"
    assert widths[-1] == len(table.headings)


def metrics(**changes: float) -> dict[str, float]:
    numbers = {"makespan_s": 123_456.789, "minibatches_per_s": 1234.56, "staleness_mean": 1.5}
    numbers |= {"worker_utilisation": 0.5, "server_utilisation": 1.0}
    return numbers | {"train_error": 0.000123456, "test_error": 0.00065432, "test_loss": 12.345} | changes


def group(name: str, seeds: int) -> Group:
    return Group(name, {}, runs={seed: metrics(test_error=0.00065432 + seed * 1e-5) for seed in range(seeds)})


@pytest.mark.parametrize("seeds", [1, 3])
@given(WIDTHS)
def test_a_sweep_shows_what_was_achieved_first(seeds: int, width: int) -> None:
    name = "algorithm.n_sync=10,task.optimizer.lr=0.05,faults.schedule=[a[/b],[c]]"
    for table in results([group("workers=1", seeds), group(name, seeds)]):
        lines = drawn(table, width)
        whole = "".join(row[0] for row in rows_of(lines))
        assert name.replace(" ", "") in whole
        assert any("test" in line for line in lines)


@given(WIDTHS, st.booleans())
def test_a_comparison_shows_predicted_beside_measured(width: int, valid: bool) -> None:
    row = {
        **{"scenario": "does-the-server-saturate[x]", "group": "emulated", "n_sync": 100, "workers": 32},
        **{"predicted": 12.3, "measured_mean": 12.1, "measured_high": 13.0, "error": 0.0165},
        **{"staleness_predicted": 1.0, "staleness_measured": 1.25, "valid": valid, "busy": False},
        **{ "server_utilisation": 0.99, "saturated": True, "lateness": 0.02},
    }  # fmt: skip
    lines = drawn(display.comparison(pd.DataFrame([row])), width)
    assert "does-the-server-saturate[x]" in [cells[0] for cells in rows_of(lines)]
    assert any("32" in line for line in lines)
    if width >= 60:
        assert any("12.30" in line and "12.10" in line for line in lines)
    if width >= 80 and not valid:
        assert any("INVALID" in line for line in lines)


@given(st.lists(st.tuples(st.text("ab ", max_size=99), st.text("01 ", max_size=300)), min_size=1), WIDTHS)
def test_names_and_words_side_by_side_are_whole_at_any_width(rows: list[tuple[str, str]], width: int) -> None:
    lines = drawn(Pairs([(Text(name), words) for name, words in rows]), width)
    names, words = (re.sub(rf"[^{kept}]", "", "".join(lines)) for kept in ("ab", "01"))
    assert names == "".join(name for name, _ in rows).replace(" ", "")
    assert words == "".join(word for _, word in rows).replace(" ", "")


@given(WIDTHS)
def test_a_result_keeps_its_words_whole(width: int) -> None:
    summary = {
        **{"workers": 200_000, "backend": "process", "seed": 10**30, "makespan_s": 1.0, "minibatches": 9, "updates": 9},
        **{"minibatches_per_s": 9.0, "dropped": 0, "staleness": {"mean": 0.0, "max": 0}, "emulated": True},
        **{"utilisation": {"workers": 1.0, "server": 0.0}, "final": {"an_own_metric_of_a_long_name_" * 4: 1.5}},
    }
    lines = drawn(display.result(summary), width)
    assert all(any(word in line for line in lines) for word in ("200,000", "workers", "devices", "100%", "1.5"))


@given(WIDTHS, st.integers(1, 20))
def test_the_bar_of_a_run_is_as_wide_as_the_terminal(width: int, workers: int) -> None:
    from asgd_lab.backends.outcome import WorkerLook

    looks = [WorkerLook("training", 1_234_567, 3, 0.25, number) for number in range(workers)]
    known = scenario()
    shown = progress_display.picture(known, progress(workers=looks), progress_display.Pace(known))
    lines = drawn(shown, width, force_terminal=True)
    assert max(cell_len(line) for line in lines if "━" in line) == width


@given(WIDTHS, WORDS)
def test_the_bars_of_a_sweep_are_as_wide_as_the_terminal_and_show_whole_names(width: int, name: str) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=width, color_system=None)
    with sweep_display(console, 3, 0, live=True) as shown:
        shown.look(name, scenario(), progress())
        lines = drawn(shown.bars.get_renderable(), width, force_terminal=True)
    assert max(cell_len(line) for line in lines) == width
    names = "".join(re.split(r"[╸╺━]| +\d+% ", line)[0].strip() for line in lines[1:])
    assert names.replace(" ", "") == name.replace(" ", "")


@given(WIDTHS)
def test_lists_show_names_and_descriptions_whole(width: int) -> None:
    for title in set(CATALOGUE) - {"models"}:
        described = CATALOGUE[title]()
        lines = drawn(Described(title, described), width)
        for name in described:
            assert any(name in line for line in lines)
    for name in presets.names():
        drawn(display.machine(presets.read(name)), width)


def test_a_name_in_brackets_is_not_markup() -> None:
    names = ["a[b]", "[bold]", "[/]", "[red]x[/red]", "x[link=http://a]"]
    table = Columns(["point", "x"], [(name, name) for name in names], ["x"], title="minus a[b]")
    lines = drawn(table, 200)
    assert lines[0].strip() == "minus a[b]"
    assert list(rows_of(lines)) == [[name, name] for name in names]
    lines = drawn(Described("[bold]", dict.fromkeys(names, "[green] words")), 200)
    assert [line.split()[0] for line in lines] == ["[bold]", *names]
    assert all(line.endswith("[green] words") for line in lines[1:])


def test_a_file_gets_every_column_and_a_line_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = io.StringIO()
    console = display.console()
    console.file = text
    headings = ["point", *(f"heading {number}" for number in range(40))]
    console.print(Columns(headings, [("name" * 30, *("1,234.5 ± 0.1" for _ in headings[1:]))], headings[1:]))
    console.print(Described("models", {"one": "word " * 200}))
    display.say(console, "x" * 500)
    lines = text.getvalue().splitlines()
    assert len(lines) == 5 + 2 + 1
    assert "left out" not in text.getvalue()


def test_a_state_keeps_its_colour() -> None:
    text = io.StringIO()
    table = Columns(["worker", "state"], [("0", Text("training", "green"))], ["state"], lines=False)
    Console(file=text, width=80, force_terminal=True, color_system="standard").print(table)
    assert "\x1b[32mtraining" in text.getvalue()
