"""The generated pages and figures of the documentation: mkdocs calls these functions when it builds the site.

No page that this file makes is a file of the tree. Its contents come from the scenarios, the schema, the command line,
and the kept tables and figures in `analysis/`: a page cannot differ from its source.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import answers  # noqa: E402
import experiments  # noqa: E402
import notebooks  # noqa: E402
import questions  # noqa: E402
import reference  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402

FIGURES = ROOT / "analysis" / "figures"
QUESTIONS = ROOT / "analysis" / "questions"
CASES = ROOT / "tests" / "outside" / "own_cases.md"


def generated() -> dict[str, str]:
    """Every generated page: its place in the documentation, and its Markdown."""
    return {
        **questions.pages(),
        **notebooks.pages(),
        "reference/keys.md": reference.keys(),
        "reference/commands.md": reference.commands(),
        "reference/lists.md": reference.lists(),
        "verdicts.md": answers.verdicts(),
        "extending/cases.md": "# Tasks that researchers bring\n\n" + CASES.read_text(encoding="utf-8"),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    }


def on_config(config: Any) -> Any:
    """Put the generated pages of a folder into the navigation, in the place of the folder's name."""
    listed = {
        "questions/": questions.titles(questions.names()),
        "questions/paper/": questions.titles(experiments.names()),
        "notebooks/": notebooks.titles(),
    }
    config.nav = [_expanded(entry, listed) for entry in config.nav]
    return config


def _expanded(entry: Any, listed: dict[str, dict[str, str]]) -> Any:
    if isinstance(entry, dict):
        ((title, value),) = entry.items()
        if isinstance(value, list):
            return {title: [_expanded(each, listed) for each in value]}
        if isinstance(value, str) and value in listed:
            index = [f"{value}index.md"]
            return {title: index + [{name: place} for place, name in listed[value].items()]}
    return entry


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and the figures that pages show."""
    for place, text in generated().items():
        files.append(File.generated(config, place, content=text))
    for folder, place in ((FIGURES, ""), (QUESTIONS, ""), (QUESTIONS / "paper", "paper/")):
        for path in sorted(folder.glob("*.png")):
            files.append(File.generated(config, f"figures/{place}{path.name}", abs_src_path=str(path)))
    for place, content in notebooks.images().items():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put kept tables into the places that pages name by a comment."""
    return answers.filled(markdown)
