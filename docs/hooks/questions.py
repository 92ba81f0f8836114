"""A page for each scenario that comes with the project: its question, answer, figure, table, explanation and keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import answers
import experiments

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "scenarios"
ORDER = (
    "quickstart", "does-the-server-saturate", "up-to-32-workers", "where-does-time-go", "can-a-slower-server-be-faster",
    "how-stale", "how-much-n_sync", "fetch-and-push-apart", "which-server-rule", "cold-or-warm-start",
    "fashion-mnist-asgd", "fashion-mnist-8-workers-simulated", "text-8-workers-simulated", "ilsvrc-2012",
    "bring-your-own",
)  # fmt: skip


def names() -> list[str]:
    """The scenarios in the order of the pages; one that ORDER does not know is last."""
    found = {path.stem for path in SCENARIOS.glob("*.yaml")}
    return [name for name in ORDER if name in found] + sorted(found - set(ORDER))


def titles(chosen: Iterable[str]) -> dict[str, str]:
    """The question of each page, by the page's place."""
    return {f"questions/{name}.md": question(name) for name in chosen}


def pages() -> dict[str, str]:
    """The pages of all scenarios, and two that list them."""
    asked = "Each scenario that comes with the project asks one question."
    return {
        "questions/index.md": _list("Questions", asked, names()),
        "questions/paper/index.md": _list(
            "Experiments of the paper",
            "These scenarios make the experiments of Paine et al. 2013 again. [Claim by claim](../../paper.md) has "
            "what they say together; figures, tables and answers here are from its kept tables.",
            experiments.names(),
        ),
        **{f"questions/{name}.md": page(name) for name in [*names(), *experiments.names()]},
    }


def _list(title: str, said: str, chosen: Iterable[str]) -> str:
    lines = [f"# {title}", "", said, ""]
    for name in chosen:
        lines += [f"- **[{question(name)}]({name.removeprefix('paper/')}.md)** {answers.short(name)}"]
    return "\n".join(lines) + "\n"


def question(name: str) -> str:
    """The first line of a scenario's file."""
    return _comment(name)[0]


def page(name: str) -> str:
    """The page of one scenario."""
    text = (SCENARIOS / f"{name}.yaml").read_text(encoding="utf-8")
    keys = text[text.index("\nname:") + 1 :].rstrip()
    parts = [f"# {question(name)}", f"**{answers.short(name)}**", answers.shown(name)]
    parts += ["## Explanation", *_prose(_comment(name)[1:])]
    parts += [f"## The scenario, `{name}.yaml`", f"```yaml\n{keys}\n```"]
    return "\n\n".join(part for part in parts if part) + "\n"


def _comment(name: str) -> list[str]:
    """The lines of the comment at the head of the file, without their signs."""
    lines = (SCENARIOS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    last = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    return [line.removeprefix("#").removeprefix(" ").rstrip() for line in lines[:last]]


def _prose(lines: list[str]) -> Iterator[str]:
    """Paragraphs and lists as Markdown; indented lines, which are commands and tables, as blocks."""
    block: list[str] = []
    paragraph: list[str] = []
    for line in [*lines, ""]:
        is_block = line.startswith("  ") and not (paragraph and paragraph[-1].startswith(("- ", "  ")))
        if block and not is_block:
            yield "```text\n" + "\n".join(block) + "\n```"
            block = []
        if paragraph and (is_block or not line):
            yield _markdown(paragraph)
            paragraph = []
        if is_block:
            block.append(line.removeprefix("  "))
        elif line:
            paragraph.append(line)


def _markdown(paragraph: list[str]) -> str:
    text = "\n".join(paragraph).replace("<", "&lt;")
    text = re.sub(r"(?m)^(- )", r"\n\1", text) if paragraph[0][:2] != "- " else text
    text = re.sub(
        r"^(Expected|Look at)\b[.:]?( in\b)?",
        lambda found: f"**{found[1]}**{'.' * (found[1] == 'Expected')}{found[2] or ''}",
        text,
    )
    return text.strip()
