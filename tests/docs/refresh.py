"""Writes the kept outputs of commands anew, in README and in docs/examples: `python -m tests.docs.refresh [PAGE...]`.

Of a sweep's output the table is kept.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from tests.docs.fences import PAGES, ROOT, RUN, fences
from tests.docs.test_examples import follow, run

KEPT = re.compile(r'(?m)^\$ (?P<command>.*)\n--8<-- "(?P<file>[^"]+\.txt)"$')
INLINE = re.compile(r"(?ms)^```console\n(?P<block>.*?)^```$")


def essential(said: list[str]) -> list[str]:
    """The table of a sweep, without the lines around it, which differ from machine to machine; other output in full."""
    edges = [index for index, line in enumerate(said) if line.startswith(("┏", "└"))]
    return ["...", *said[edges[0] : edges[-1] + 1], "..."] if edges else said


def kept(path: Path) -> None:
    """Run the page's commands whose output is a file, and write these files."""
    text = path.read_text(encoding="utf-8")
    files = {found["command"]: ROOT / found["file"] for found in KEPT.finditer(text)}
    for file in files.values():
        file.touch()
    inside = "".join(found["block"] for found in INLINE.finditer(text)) if path.name == "README.md" else ""
    if not files and not inside:
        return
    session: dict[str, object] = {"__name__": "__page__"}
    for fence in fences(path):
        if fence.language != "console" and fence.title is not None:
            follow(fence, session)
        elif fence.language == "console" and fence.shown is None:
            for command in re.findall(r"(?m)^\$ (.*)$", fence.text):
                if command in files or inside or command.startswith("python"):
                    said = essential(run(command))
                    if command in files:
                        files[command].write_text("\n".join(said) + "\n", encoding="utf-8")
                    elif inside:
                        old = f"```console\n{fence.text}```"
                        assert old in text
                        text = text.replace(old, "```console\n" + "\n".join([f"$ {command}", *said]) + "\n```")
                        path.write_text(text, encoding="utf-8")


def main() -> None:
    """The named pages, or all, each in a folder of its own."""
    for path in [Path(page).resolve() for page in sys.argv[1:]] or PAGES:
        if any(each.language in RUN for each in fences(path) if each.shown is None):
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                shutil.copy(ROOT / "docs" / "examples" / "first.yaml", folder)
                kept(path)
                os.chdir(ROOT)


if __name__ == "__main__":
    main()
