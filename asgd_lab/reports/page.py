"""The page: the questions, each with the answer of every subject, as HTML that escapes all text."""

from __future__ import annotations

import base64
import functools
import gzip
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from asgd_lab import __version__
from asgd_lab.errors import ScenarioError
from asgd_lab.reports import at_a_glance, confidence, explained, staleness, synchronisation, time_use, workers
from asgd_lab.reports.content import Plot, Section, Table
from asgd_lab.reports.interactive import figure
from asgd_lab.reports.recorded import Subject
from asgd_lab.reports.static_svg import picture

TEMPLATES = Path(__file__).parent / "templates"
QUESTIONS: tuple[tuple[str, str, Callable[[Subject], Section]], ...] = (
    ("glance", "At a glance", at_a_glance.section),
    ("workers", "How many workers?", workers.section),
    ("n_sync", "Which n_sync?", synchronisation.section),
    ("staleness", "How stale?", staleness.section),
    ("time", "Where does the time go?", time_use.section),
    ("explained", "What did explain say?", explained.section),
    ("trust", "How far to trust it?", confidence.section),
)
_KINDS = {"run": "one run", "sweep": "a sweep", "comparison": "prediction beside measurement"}


class Library(NamedTuple):
    """The script that draws in the browser: its text, and the type of the element that carries it."""

    text: str
    type: str


def html(subjects: Sequence[Subject]) -> str:
    """The page about these subjects; a `ScenarioError` without the library."""
    drawn = library()
    questions = [
        {"anchor": anchor, "title": title, "answers": [_plain(answer(subject)) for subject in subjects]}
        for anchor, title, answer in QUESTIONS
        if anchor != "explained" or any(map(explained.has_any, subjects))
    ]
    names = list(dict.fromkeys(subject.name for subject in subjects))
    template = _environment().get_template("page.html")
    return template.render(
        title=f"{', '.join(names)}: report",
        subjects=[_about(subject) for subject in subjects],
        questions=questions,
        library={"text": Markup(drawn.text), "type": drawn.type},  # our own files and the library's
        style=Markup(_text("page.css")),
        script=Markup(_text("page.js")),
        version=__version__,
    )


def library_path() -> Path | None:
    """The library's script, from the installed package, which is not imported; None without it."""
    found = find_spec("plotly")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "package_data" / "plotly.min.js"
    return path if path.is_file() else None


@functools.cache
def library() -> Library:
    """The library, packed: a browser unpacks it in a moment, and a page is less than half as large."""
    path = library_path()
    if path is None:
        raise ScenarioError("report: needs the package plotly: pip install plotly")
    packed = gzip.compress(path.read_bytes(), 6, mtime=0)
    return Library(base64.b64encode(packed).decode(), "application/octet-stream")


def _about(subject: Subject) -> dict[str, str]:
    said = f"{_KINDS[subject.kind]} on backend {subject.scenario.backend.name}"
    return {"name": subject.name, "description": subject.scenario.description, "said": said, "path": str(subject.path)}


def _plain(section: Section) -> dict[str, Any]:
    return {
        "answer": section.answer,
        "is_answered": section.is_answered,
        "notes": section.notes,
        "parts": list(_parts(section)),
    }


def _parts(section: Section) -> Iterator[dict[str, Any]]:
    for part in section.parts:
        if isinstance(part, Plot):
            yield {"kind": "plot", "plot": part, "picture": picture(part), "figure": figure(part)}
        elif isinstance(part, Table):
            yield {"kind": "table", "table": part}
        else:
            yield {"kind": "trace", "trace": part}


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@functools.cache
def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
