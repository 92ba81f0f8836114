"""README is short, links at the top of the tree lead somewhere, and no sentence begins with a relative clause."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.fences import PAGES, ROOT, resolved

MOST_WORDS = 1200
README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
LINK = re.compile(r"\]\(([^)\s]+)\)")
RELATIVE = re.compile(r"(?:^|(?<=[.;:!] ))(?:What|Whatever|Who|Whoever|Whose|Whom|Which)\b[^?]*?[.;|]", re.M)


def relative_clauses(text: str) -> list[str]:
    """The sentences of a page, outside of its blocks, that begin with one; questions may."""
    text = re.sub(r"(?ms)^```.*?^```$", "", text)
    text = re.sub(r"\n(?=[^\n|#-])", " ", text)  # a paragraph is a line
    return [found[0][:80] for found in RELATIVE.finditer(text)]


def words(text: str) -> int:
    """The words of a page, code and tables among them, without its invisible comments."""
    return len(re.sub(r"<!--.*?-->", "", text, flags=re.S).split())


def anchors(path: Path) -> set[str]:
    """The anchors that a code host makes of a file's headings."""
    headings = re.findall(r"(?m)^#+ (.*)$", path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_has_at_most_1200_words() -> None:
    assert words(README.read_text(encoding="utf-8")) <= MOST_WORDS


@pytest.mark.parametrize("path", [README, CONTRIBUTING], ids=lambda path: path.name)
def test_every_link_of_a_file_at_the_top_leads_somewhere(path: Path) -> None:
    found = LINK.findall(path.read_text(encoding="utf-8"))
    assert found
    for address in found:
        if "://" in address:
            continue
        file, _, place = address.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), address
        assert not place or place in anchors(target), address


def test_files_and_targets_that_the_pages_name_exist() -> None:
    """Files in backquotes with a folder of the project, and make's targets."""
    targets = set(re.findall(r"(?m)^([\w%-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    for path in [*PAGES, CONTRIBUTING]:
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"`((?:tests|scenarios|analysis|docs|asgd_lab)/[\w./-]*)`", text):
            assert (ROOT / name).exists(), f"{path}: {name}"
        for target in re.findall(r"\bmake ([a-z-]+)`", text):
            assert target in targets, f"{path}: make {target}"


@pytest.mark.parametrize("path", [*PAGES, CONTRIBUTING], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_sentence_begins_with_a_relative_clause(path: Path) -> None:
    assert relative_clauses("\n".join(resolved(path))) == []


TERM = re.compile(r"(?<!\*)\*([A-Za-z_-]+(?: [a-z-]+)?)\*(?!\*)")


def glossary() -> list[str]:
    """The words of the glossary, in its order."""
    rows = re.findall(r"(?m)^\| ([^|]+) \| ", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"))
    return [word for row in rows[2:] for word in re.split(r", | \(|\)", row) if word]


@pytest.mark.parametrize("path", [*PAGES, CONTRIBUTING], ids=lambda path: str(path.relative_to(ROOT)))
def test_each_term_that_a_page_introduces_is_in_the_glossary(path: Path) -> None:
    """Terms are in italics where they are told."""
    text = re.sub(r"(?ms)^```.*?^```$|`[^`\n]*`", "", path.read_text(encoding="utf-8"))
    known = glossary()
    for term in TERM.findall(text):
        word = term.lower()
        assert {word, word.removesuffix("s")} & set(known), f"{path}: {term}"


def test_the_glossary_is_in_order() -> None:
    words = [word.lower() for word in glossary()]
    assert len(set(words)) == len(words)
    rows = re.findall(r"(?m)^\| ([a-z][^|,]+)", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"))[1:]
    assert [row.strip().lower() for row in rows] == sorted(row.strip().lower() for row in rows)


def test_staleness_is_defined_where_readme_first_uses_it() -> None:
    text = README.read_text(encoding="utf-8")
    first = text.index("taleness")
    assert "version 5 were made since its fetch" in text[first : first + 200]
    assert "that were made between the worker's fetch and the application" in text
