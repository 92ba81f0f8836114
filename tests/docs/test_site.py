"""The documentation builds without a warning, needs no network, and its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.fences import ROOT

pytestmark = pytest.mark.xdist_group("site")
LOADING = {
    "script": "src",
    "img": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "object": "data",
}
NOT_LOADED = {"canonical", "next", "prev", "alternate"}  # relations of a link that a browser does not follow by itself
ASKED = {
    "https://api.github.com/repos/",
    "https://api.github.com/users/",
    "https://unpkg.com/mermaid@11/dist/mermaid.min.js",
    "https://unpkg.com/resize-observer-polyfill",
}
"""Addresses in the theme's script, for a repository's address, a mermaid diagram, or a browser of before 2020."""


class Page(HTMLParser):
    """The addresses in a page: those that a browser loads, those of links, and the places that a link may lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.classes: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.places |= {given[key] for key in ("id", "name") if key in given}
        self.classes |= set(given.get("class", "").split())
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in LOADING and LOADING[tag] in given and given.get("rel") not in NOT_LOADED:
            self.loaded.append(given[LOADING[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # an advertisement of the theme's makers
    command = [
        sys.executable,
        "-W",
        "error::SyntaxWarning",
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(folder),
    ]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=quiet)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_there_is_a_page_for_each_scenario_and_each_subject(pages: dict[Path, Page], site: Path) -> None:
    found = {str(path.relative_to(site)) for path in pages}
    scenarios = {f"questions/{path.stem}.html" for path in (ROOT / "scenarios").glob("*.yaml")}
    assert scenarios <= found
    assert {"reference/keys.html", "reference/commands.html", "reference/python.html", "benchmarks.html"} <= found


def test_the_site_loads_nothing_from_elsewhere(pages: dict[Path, Page], site: Path) -> None:
    for path, page in pages.items():
        for address in page.loaded:
            assert not urlsplit(address).netloc, f"{path}: {address}"
        assert "mermaid" not in page.classes
    for path in site.rglob("*.css"):
        for address in re.findall(r"(?:url\(|@import )[\"']?([^\"')]+)", path.read_text(encoding="utf-8")):
            assert not urlsplit(address).netloc, f"{path}: {address}"
    named = {
        address
        for path in site.rglob("*.js")
        for address in re.findall(r"https?://[\w./@-]+", path.read_text(encoding="utf-8"))
        if any(address.startswith(host) for host in ("https://unpkg", "https://api", "https://cdn", "https://fonts"))
    }
    assert named <= ASKED


def _broken(pages: dict[Path, Page]) -> Iterator[str]:
    for path, page in pages.items():
        for address in page.links + page.loaded:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                yield f"{path}: {address}: there is no such file"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
                yield f"{path}: {address}: there is no such place"


def test_every_link_and_every_anchor_leads_somewhere(pages: dict[Path, Page]) -> None:
    assert list(_broken(pages)) == []


def test_every_key_of_the_schema_is_in_the_reference(site: Path) -> None:
    from asgd_lab.scenario import json_schema

    text = (site / "reference" / "keys.html").read_text(encoding="utf-8")
    schema = json_schema()
    for part in [schema, *schema["$defs"].values()]:
        for key in part.get("properties", {}):
            assert f"<code>{key}</code>" in text, key


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    import typer

    from tests.cli.harness import app

    text = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert f'id="{name}"' in text
        for each in command.params:
            if each.param_type_name == "option":
                assert each.opts[0] in text, (name, each.opts)
