"""Headless Chromium, for tests of pages: the page after its scripts have run, its console, and its requests."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WHY_NOT = "headless Chromium is missing (Debian's package chromium): the pages' scripts were not run"
PATIENCE_S = 120
_CONSOLE = re.compile(r"CONSOLE.*?\] (\".*\"), source: ", re.DOTALL)
_LOCAL = ("file:", "data:", "blob:", "about:", "chrome:", "chrome-untrusted:", "chrome-extension:", "devtools:")


@dataclass(frozen=True, slots=True)
class Seen:
    """The page's elements after its scripts, messages on its console, and URLs that it asked a network for."""

    dom: str
    console: list[str]
    requests: list[str]


def look(page: Path, folder: Path, *options: str) -> Seen:
    """Load a page in a browser that finds no host; `folder` takes the browser's own files."""
    assert CHROMIUM is not None
    log = folder / "requests.json"
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--no-first-run", "--disable-component-update", "--disable-background-networking", "--disable-sync"),
            *("--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000"),
            *(f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", *options, page.absolute().as_uri()),
        ],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    shutil.rmtree(folder / "profile", ignore_errors=True)
    return Seen(done.stdout, _CONSOLE.findall(done.stderr), _requests(log))


def screenshot(page: Path, folder: Path, image: Path, width: int, height: int, *, dark: bool = False) -> Seen:
    """A picture of the page at that width."""
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
    size = f"--window-size={width},{height}"
    return look(page, folder, f"--screenshot={image}", size, "--hide-scrollbars", *scheme)


def _requests(log: Path) -> list[str]:
    """Every URL that a page asked for and that is not local; the browser's own requests have no origin."""
    text = log.read_text(encoding="utf-8").rstrip().rstrip(",")
    try:
        events = json.loads(text)["events"]
    except json.JSONDecodeError:  # the browser ended in the midst of the log
        events = json.loads(f"{text}]}}")["events"]
    asked = [each for event in events if "url" in (each := event.get("params", {}))]
    urls = [each["url"] for each in asked if each.get("initiator", "not an origin") != "not an origin"]
    return sorted({url for url in urls if not url.startswith(_LOCAL)})
