"""Help, version and completion: every word of every help text is shown, and none of it waits for torch."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import asgd_lab
from asgd_lab.app import cli
from tests.cli.harness import Said
from tests.cli.harness import asgd_lab as command

PACKAGE = Path(asgd_lab.__file__).parent
GROUP = typer.main.get_command(cli.app)
COMMANDS = GROUP.commands  # type: ignore[attr-defined]
WITHOUT_TORCH = """
import sys
from asgd_lab.app.cli import main
try:
    main()
finally:
    assert "torch" not in sys.modules, "torch was imported"
"""


def words(text: str | None) -> str:
    return "".join((text or "").split())


def light(*arguments: str, **environment: str) -> Said:
    """The program in a process of its own, which fails if torch is imported."""
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    return Said(found.returncode, found.stdout, found.stderr)


@pytest.mark.parametrize("width", ["40", "80", "200"])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_word_and_every_bracket(name: str, width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    short, long = command(name, "-h"), command(name, "--help")
    assert (short.status, short.err) == (0, "")
    assert short == long
    assert words(inspect.getdoc(COMMANDS[name].callback)) in words(short.out)
    for parameter in COMMANDS[name].params:
        assert words(getattr(parameter, "help", None)) in words(short.out)
    assert "..." not in short.out.replace("}...", "")


def test_the_programs_help_names_every_command_in_whole_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    for width in ("40", "80", "200"):
        monkeypatch.setenv("COLUMNS", width)
        said = command("-h")
        assert (said.status, said.err) == (0, "")
        assert "..." not in said.out.replace("[ARGS]...", "")
        for name, each in COMMANDS.items():
            assert words(f"{name}{each.short_help}") in words(said.out)
    assert "pip install tensorboardX" in command("tensorboard", "-h").out


def test_the_version_is_the_packages() -> None:
    assert light("--version") == Said(0, f"asgd-lab {asgd_lab.__version__}\n", "")


@pytest.mark.parametrize(("typed", "expected"), [
    (["te"], {"tensorboard"}),
    (["run", "--see"], {"--seed", "--seeds"}),
    (["run", "--backend", "p"], {"process"}),
    (["list", "pre"], {"presets"}),
])  # fmt: skip
def test_the_shell_completes_commands_options_and_values(typed: list[str], expected: set[str]) -> None:
    line = " ".join(["asgd-lab", *typed])
    said = light(_ASGD_LAB_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(typed)))
    assert (said.status, set(said.out.split()), said.err) == (0, expected, "")


@pytest.mark.parametrize(("shell", "file"), [
    ("bash", ".bash_completions/asgd-lab.sh"),
    ("zsh", ".zfunc/_asgd-lab"),
    ("fish", ".config/fish/completions/asgd-lab.fish"),
])  # fmt: skip
def test_completion_is_shown_and_installed(shell: str, file: str, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown = light("--show-completion", shell, **environment)
    assert (shown.status, shown.err) == (0, "")
    assert "_ASGD_LAB_COMPLETE" in shown.out
    assert light("--install-completion", shell, **environment).status == 0
    assert "_ASGD_LAB_COMPLETE" in (tmp_path / file).read_text()


@pytest.mark.parametrize(("typed", "hint"), [
    (["rnu"], "; did you mean 'run'?"),
    (["run", "--sed", "3", "x.yaml"], "no such option: --sed; did you mean '--seed'? "),
    (["run", "a[b].yaml"], "a[b].yaml"),
    (["run", "[red]x[/red].yaml"], "[red]x[/red].yaml"),
    (["run", "[/].yaml"], "[/].yaml"),
    (["replay", "a[b]"], "a[b]"),
    (["tensorboard", "[bold]"], "[bold]"),
    (["list", "[bold]"], "[bold]"),
    (["compare", "[bold].yaml"], "[bold].yaml"),
    (["validate", "[bold].yaml", "--set", "a[b]=1"], "[bold].yaml"),
])  # fmt: skip
def test_a_mistake_is_answered_with_what_was_typed_and_a_hint(typed: list[str], hint: str) -> None:
    said = command(*typed)
    assert (said.status, said.out) == (2, "")
    assert hint in said.err
    assert said.err.count("\n") == 1


def printed(source: str) -> Iterator[ast.Call]:
    """Calls that hand a string to rich as markup: `anything.print("...")` without markup=False."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "print":
            strings = [each for each in node.args if isinstance(each, ast.JoinedStr | ast.BinOp)]
            strings += [each for each in node.args if isinstance(each, ast.Constant) and each.value]
            if strings and not any(keyword.arg == "markup" for keyword in node.keywords):
                yield node


def test_no_line_is_printed_as_markup() -> None:
    found = [f"{path}:{call.lineno}" for path in PACKAGE.rglob("*.py") for call in printed(path.read_text("utf-8"))]
    assert found == []
    assert len(list(printed('console.print(f"{name} is done")'))) == 1


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").read_bytes() == b""
