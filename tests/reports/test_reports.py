"""Reports: what they answer, that they are one well-formed page that loads nothing, and that they never fail a run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import asgd_lab
from asgd_lab.reports import page
from asgd_lab.reports.synchronisation import Result, undominated
from tests.cli.harness import QUADRATIC
from tests.cli.harness import asgd_lab as program

HOSTILE = """<img src=x onerror=alert(1)> & "q" 'a' {{ 7 * 7 }} %{x}"""
BOWL: dict[str, Any] = {
    "name": "bowl",
    "task": {"name": "quadratic", "curvature": [1.0, 4.0], "noise": 0.1, "optimizer": {"name": "SGD", "lr": 0.05}},
    "algorithm": {"name": "asgd", "n_sync": 2},
    "workers": 2,
    "budget": {"minibatches": 60},
    "evaluate": {"every_minibatches": 10},
    "backend": "sim",
    "hardware": {
        "preset": "laptop",
        "compute": {"distribution": "lognormal", "cv": 0.3, "step_s": 0.01},
        "server": {"push_s": 0.1},
    },
}
QUESTIONS = ["glance", "workers", "n_sync", "staleness", "time", "trust"]


class Page(HTMLParser):
    """The elements of a page; it fails where one is not closed in its place."""

    EMPTY = frozenset({"meta", "br", "input", "path", "img", "link"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def sections(self) -> list[str | None]:
        return [attributes.get("id") for tag, attributes in self.elements if tag == "section"]

    def loaded(self) -> list[str]:
        """Whatever the page would load."""
        names = {"src", "data", "srcset", "poster", "action", "background"}
        found = [value for _, each in self.elements for name, value in each.items() if name in names and value]
        return found + [each["href"] or "" for tag, each in self.elements if tag in ("link", "use", "image")]

    def said(self, tag: str = "p") -> str:
        return "\n".join(text for inside, text in self.texts if inside == tag)


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that learns: workers by n_sync, with two seeds."""
    out = tmp_path_factory.mktemp("swept") / "sweep"
    sweep = {"algorithm.n_sync": [1, 8], "workers": [1, 8]}
    asgd_lab.sweep({**BOWL, "sweep": sweep}, out=out, jobs=1, seeds=2)
    return out


@pytest.fixture(scope="module")
def reported(swept: Path) -> Page:
    return read(asgd_lab.report(swept))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("bowl.yaml").write_text(QUADRATIC, encoding="utf-8")
    return tmp_path


def test_a_sweep_is_one_well_formed_page_that_loads_nothing(swept: Path, reported: Page) -> None:
    assert reported.sections() == QUESTIONS
    assert reported.loaded() == []
    assert (swept / "report.html").stat().st_size < 3_000_000
    figures = sum(tag == "figure" for tag, _ in reported.elements)
    pictures = sum(tag == "svg" for tag, _ in reported.elements)
    assert figures == pictures >= 9


def test_each_question_has_an_answer_in_a_sentence(reported: Page) -> None:
    said = reported.said()
    for words in (
        r"4 points over algorithm\.n_sync \(2 values\), workers \(2 values\) finished\.",
        r"Throughput is highest with 8 workers \(n_sync=8\): [\d,.]+ minibatches/s, a speed-up of [\d.]+\.",
        r"n_sync=1: the server is the bottleneck from \d workers? on, busy 90% of the time or more; (no|the knee lies)",
        r"points are beaten by no other one in both time and test loss",
        r"The mean staleness goes from 0 versions \(n_sync=\d,workers=1\) to [\d.]+ \(n_sync=\d,workers=8\)",
        r"Workers compute for \d+% to \d+% of their time",
        r"Nothing recorded here speaks against these numbers",
    ):
        assert re.search(words, said), words
    grades = [cell for tag, cell in reported.texts if tag == "th"]
    assert "assumed" in grades


def test_one_run_says_why_it_does_not_answer_questions_of_sweeps(here: Path) -> None:
    run = asgd_lab.run(BOWL, out="run")
    found = read(asgd_lab.report(run))
    assert found.sections() == QUESTIONS
    assert "only 2 workers ran. A sweep over workers answers" in found.said()
    assert "only n_sync = 2 ran. A sweep over it answers" in found.said()
    assert "Pushes are" in found.said()


def test_text_of_the_user_is_text_on_the_page(here: Path) -> None:
    hostile = {**BOWL, "name": HOSTILE, "description": f"</script><script>alert(1)</script>{HOSTILE}"}
    other = "</title><script>alert(2)</script>"
    run = asgd_lab.run({**hostile, "sweep": {"description": [other, "plain"]}}, {"sweep": None}, out="run")
    path = asgd_lab.report(run.path, run.path, out="page.html")
    found = read(path)
    assert [tag for tag, _ in found.elements].count("img") == 0
    scripts = [text for tag, text in found.texts if tag == "script"]
    assert not any("alert(" in text and not text.startswith("{") for text in scripts)
    assert HOSTILE in [text for tag, text in found.texts if tag == "h3"]
    assert "alert(1)" in found.said()
    assert found.loaded() == []


def test_a_killed_worker_of_a_real_run_is_reported(here: Path) -> None:
    changes = {
        "backend": {"name": "process", "device": "emulated"},
        "hardware": {"compute": {"step_s": 0.004}},
        "evaluate": None,
        "budget": {"seconds": 1.5},
        "faults": {"schedule": [{"name": "kill", "worker": 1, "at_s": 0.3}]},
    }
    found = read(asgd_lab.report(asgd_lab.run(BOWL, changes, out="run")))
    assert "worker 1 began again (2 workers in all)" in found.said("td")
    assert any("a worker crashes at" in text for tag, text in found.texts if tag == "figcaption")


def test_several_directories_stand_side_by_side(here: Path, swept: Path) -> None:
    run = asgd_lab.run({**BOWL, "name": "lone"}, out="run")
    said = program("report", run.path, swept, "--out", "both.html")
    assert (said.status, said.err) == (0, "")
    found = read(Path("both.html"))
    assert [text for tag, text in found.texts if tag == "h3"] == ["lone", "bowl"] * len(QUESTIONS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "nowhere"], "nowhere: does not exist"),
        (["report", "bowl.yaml"], "bowl.yaml: is not a directory"),
        (["report", "."], ".: holds no run; name the directory of a run, a sweep or a comparison"),
    ],
)
def test_a_directory_without_a_run_is_refused_in_a_line(here: Path, arguments: list[str], said: str) -> None:
    found = program(*arguments)
    assert (found.status, found.out, found.err) == (2, "", f"{said}\n")


def test_without_its_library_a_report_says_what_to_install_and_a_run_says_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.library.cache_clear()
    monkeypatch.setattr(page, "library_path", lambda: None)
    found = program("run", "bowl.yaml", "--out", "run", "--set", "report=true")
    assert (found.status, found.err) == (0, "")
    assert not Path("run/report.html").exists()
    found = program("report", "run")
    assert (found.status, found.err) == (2, "report: needs the package plotly: pip install plotly\n")


def test_run_writes_a_report_once_and_a_key_turns_it_off(here: Path) -> None:
    found = program("run", "bowl.yaml", "--out", "run", "--set", "report=true")
    assert (found.status, found.err) == (0, "")
    assert "wrote run/report.html" in found.out
    sweep = ("--set", "sweep={workers: [1, 2]}", "--jobs", "1")
    assert program("run", "bowl.yaml", "--out", "sweep", *sweep, "--set", "report=true").status == 0
    assert [str(path) for path in Path("sweep").rglob("report.html")] == ["sweep/report.html"]
    assert program("run", "bowl.yaml", "--out", "off", "--set", "report=false").status == 0
    assert not Path("off/report.html").exists()


def test_a_report_that_fails_is_a_line_and_the_run_is_done(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> str:
        raise ValueError("a fault of the report")

    monkeypatch.setattr(page, "html", fails)
    found = program("run", "bowl.yaml", "--out", "run", "--set", "report=true")
    assert found.status == 0
    assert found.err == "warning: the report could not be written: ValueError: a fault of the report\n"


def test_points_that_no_other_beats_in_both_time_and_loss() -> None:
    def result(time_s: float, loss: float) -> Result:
        return Result("", "", 0.0, time_s, loss)

    three = [result(1, 3), result(2, 2), result(4, 1)]
    assert undominated([*three[::-1], result(2, 2.5), result(3, 2), result(5, 1)]) == three
    assert undominated([result(1, 1), result(2, 3)], sign=-1) == [result(1, 1), result(2, 3)]


def test_figures_of_the_browser_are_those_of_the_pictures(reported: Page) -> None:
    stated = [json.loads(text) for tag, text in reported.texts if tag == "script" and text.startswith("{")]
    for figure in stated:
        assert figure["data"], figure["layout"]
        for trace in figure["data"]:
            assert len(trace["x"]) == len(trace["y"]) > 0


def _colors(style: str) -> Iterator[dict[str, str]]:
    for block in re.findall(r":root \{(.*?)\n\s*\}", style, re.DOTALL):
        yield dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


def test_text_and_lines_of_both_schemes_can_be_read() -> None:
    """WCAG 2.1: a contrast of at least 4.5 for text (1.4.3), of at least 3 for lines (1.4.11)."""
    from asgd_lab.figures.style import contrast

    schemes = list(_colors((page.TEMPLATES / "page.css").read_text(encoding="utf-8")))
    assert len(schemes) == 2
    assert {*schemes[0]} == {*schemes[1]}
    for colors in schemes:
        for ground in ("paper", "card", "soft"):
            for text in ("ink", "muted", "link"):
                assert contrast(colors[text], colors[ground]) >= 4.5, (text, ground)
        for name, color in colors.items():
            if re.fullmatch(r"s\d", name):
                assert contrast(color, colors["paper"]) >= 3, name
