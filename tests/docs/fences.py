"""The fenced blocks of README and of the pages: files, commands with their output, and Python.

A block with a title is a file of that name. ```console is commands behind "$ " and their exact output, in which "..."
stands for any text, and a line "..." for any lines; ```sh is commands alone; ```python is a program; ```pycon is a
session of the interpreter.
`<!-- shown: REASON -->` on the line before a block says that it is not run, and why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]*)\")?$")
SNIPPET = re.compile(r'^--8<-- "([^":]+)(?::([\w-]+))?"$')
SHOWN = re.compile(r"^<!-- shown: (.+) -->$")
RUN = {"console", "sh", "python", "pycon"}


@dataclass(frozen=True, slots=True)
class Fence:
    """One block of a page."""

    page: str
    line: int
    language: str
    title: str | None
    text: str
    shown: str | None  # the reason why it is not run


def resolved(path: Path) -> list[str]:
    """The lines of a page, with the files that it includes."""
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if found := SNIPPET.match(line):
            lines += included(ROOT / found[1], found[2])
        elif "--8<-- [" not in line:
            lines.append(line)
    return lines


def included(path: Path, section: str | None) -> list[str]:
    """The lines of an included file, or of a section of it; none of an output that is not kept yet."""
    if path.suffix == ".txt" and not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    if section is not None:
        first, last = (lines.index(f"<!-- --8<-- [{end}:{section}] -->") for end in ("start", "end"))
        lines = lines[first + 1 : last]
    return [line for line in lines if "--8<-- [" not in line]


def fences(path: Path) -> list[Fence]:
    """The blocks of a page, in order."""
    found: list[Fence] = []
    lines, inside, before = resolved(path), None, ""
    for number, line in enumerate(lines, 1):
        if inside is None:
            if line.startswith("```"):
                opened = FENCE.match(line)
                assert opened, f"{path}:{number}: {line}"
                shown = SHOWN.match(before)
                inside = (number, opened[1], opened[2], shown and shown[1])
            before = line if line else before
        elif line == "```":
            start, language, title, reason = inside
            text = "\n".join(lines[start : number - 1]) + "\n"
            found.append(Fence(str(path.relative_to(ROOT)), start, language, title, text, reason))
            inside, before = None, ""
    assert inside is None, f"{path}: a block does not end"
    return found


def commands(fence: Fence) -> list[tuple[str, list[str]]]:
    """The commands of a ```console block, each with the lines of its output."""
    found: list[tuple[str, list[str]]] = []
    for line in fence.text.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            found[-1][1].append(line)
    return found


def agrees(expected: list[str], said: list[str]) -> bool:
    """Whether the lines are the expected ones; "..." in a line stands for any text, and as a line for any lines."""
    written = (re.escape(line).replace(r"\.\.\.", ".*") + r"\n" for line in expected)
    pattern = "".join(r"(?:.*\n)*" if line == "..." else each for line, each in zip(expected, written, strict=True))
    return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in said)) is not None
