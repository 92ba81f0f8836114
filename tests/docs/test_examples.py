"""Every file, command and program of README and the documentation does what the page says."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asgd_lab.scenario import Document
from tests.cli.harness import asgd_lab
from tests.docs.fences import PAGES, ROOT, RUN, Fence, agrees, commands, fences

OUTSIDE = ("ringmaster", "delay_compensated", "top_k", "own_task", "own_data", "own_algorithm", "own_backend",
           "text_lines")  # fmt: skip
WITH_EXAMPLES = [path for path in PAGES if any(each.language in RUN and not each.shown for each in fences(path))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of somebody who follows a page, with scenarios of theirs; modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in OUTSIDE:
        sys.modules.pop(name, None)
    if (tmp_path / "first.yaml").exists() is False:
        shutil.copy(ROOT / "docs" / "examples" / "first.yaml", tmp_path)
    return tmp_path


PROGRESS = re.compile(r"running: |[\d.,]+ s, [\d,]+ minibatches, .*% of the budget")


def run(command: str) -> list[str]:
    """The lines that a command prints, but for its progress; the command line runs in this process."""
    return [line.rstrip() for line in _printed(command) if not PROGRESS.match(line)]


def _printed(command: str) -> list[str]:
    words = shlex.split(command)
    if words[0] == "asgd-lab" and ">" not in words:
        alone = ["--jobs", "1"] if words[1] == "run" else []  # a pool of processes takes seconds to start
        said = asgd_lab(*words[1:], *alone)
        assert said.status in (0, 2), said
        return (said.out + said.err).splitlines()
    program = {"asgd-lab": f"{shlex.quote(sys.executable)} -m asgd_lab", "python": shlex.quote(sys.executable)}
    command = program.get(words[0], words[0]) + command.removeprefix(words[0])
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def follow(fence: Fence, session: dict[str, object]) -> None:
    """Do what a block says."""
    where = f"{fence.page}:{fence.line}"
    if fence.title is not None:
        Path(fence.title).write_text(fence.text, encoding="utf-8")
        if fence.title.endswith(".yaml"):
            Document.read(fence.title)
    elif fence.shown is not None or fence.language not in RUN:
        return
    elif fence.language == "console":
        for command, expected in commands(fence):
            said = run(command)
            assert agrees(expected, said), f"{where}: {command}\n" + "\n".join(said)
    elif fence.language == "sh":
        for command in fence.text.splitlines():
            run(command)
    elif fence.language == "pycon":
        test = doctest.DocTestParser().get_doctest(fence.text, session, where, fence.page, fence.line)
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
        said: list[str] = []
        runner.run(test, out=said.append, clear_globs=False)
        session.update(test.globs)
        assert runner.failures == 0, "".join(said)
    else:
        exec(compile(fence.text, where, "exec"), session)


@pytest.mark.xdist_group("process")
@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_does_what_it_says(path: Path, folder: Path) -> None:
    session: dict[str, object] = {"__name__": "__page__"}
    for fence in fences(path):
        follow(fence, session)
    assert folder == Path.cwd()


def test_the_tutorial_has_readmes_scenario_and_its_output() -> None:
    examples, readme = ROOT / "docs" / "examples", (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("first.yaml", "first.txt"):
        assert (examples / name).read_text(encoding="utf-8") in readme


def test_readmes_sentences_are_about_its_output() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = {workers: re.search(rf"│ workers={workers} .*", readme) for workers in (1, 8)}
    one, eight = ([cell.strip(" %") for cell in row[0].split("│")[2:-1]] for row in rows.values() if row)
    speedup, _, _, _, staleness, busy, _, error = (float(each.replace(",", "")) for each in eight[:8])
    assert f"are {speedup:.1f} times as fast as one: they compute {busy:.0f}% of the time" in readme
    assert f"are {staleness:.1f} versions old" in readme
    assert 1.7 < error / float(one[7]) < 2


def test_every_example_is_shown_on_a_page() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    for path in sorted((ROOT / "docs" / "examples").iterdir()):
        if "__pycache__" not in path.name:
            assert f'--8<-- "docs/examples/{path.name}"' in text or path.name == "README.txt", path


def test_what_the_tutorial_runs_is_in_the_tutorial() -> None:
    tutorial = [fence for fence in fences(ROOT / "docs" / "tutorial.md") if fence.shown is None]
    elsewhere = [fence for path in PAGES for fence in fences(path) if fence.shown == "the tutorial runs it"]
    assert elsewhere
    for fence in elsewhere:
        assert any((each.language, each.text) == (fence.language, fence.text) for each in tutorial), fence


@pytest.mark.parametrize(
    ("expected", "said", "is_so"),
    [
        (["a", "...", "b"], ["a", "b"], True),
        (["a", "...", "b"], ["a", "x", "y", "b"], True),
        (["500, ... a second"], ["500, 12.5 a second"], True),
        (["500, ... a second"], ["501, 12.5 a second"], False),
        (["same bits..."], ["other bits; not same"], False),
        (["a"], ["a", "b"], False),
    ],
)
def test_dots_stand_for_text_and_for_lines_alone(expected: list[str], said: list[str], is_so: bool) -> None:
    assert agrees(expected, said) == is_so


def test_a_block_that_is_not_run_says_why() -> None:
    for path in PAGES:
        for fence in fences(path):
            if fence.shown is not None:
                assert len(fence.shown.split()) >= 3, fence
                assert fence.language in RUN
            for command in re.findall(r"(?m)^\$ .*$", fence.text):
                assert fence.language in ("console", "text"), f"{fence.page}: {command}"
