"""Reports in a browser: every plot is drawn, nothing is on the console, and no request leaves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import asgd_lab
from tests.reports import browser
from tests.reports.test_reports import BOWL, HOSTILE

PROBE = """<!doctype html><title>probe</title><img src="http://probe.invalid/one.png">
<script>console.warn("a message"); fetch("https://probe.invalid/two").catch(() => 0); nowhere();</script>"""


@pytest.mark.skipif(browser.CHROMIUM is None, reason=browser.WHY_NOT)
def test_the_look_at_a_page_sees_messages_errors_and_requests(tmp_path: Path) -> None:
    (tmp_path / "probe.html").write_text(PROBE, encoding="utf-8")
    seen = browser.look(tmp_path / "probe.html", tmp_path, "--dump-dom")
    assert seen.requests == ["http://probe.invalid/one.png", "https://probe.invalid/two"]
    assert any("a message" in line for line in seen.console)
    assert any("nowhere is not defined" in line for line in seen.console)


@pytest.mark.skipif(browser.CHROMIUM is None, reason=browser.WHY_NOT)
def test_every_plot_is_drawn_without_a_message_and_without_a_network(tmp_path: Path) -> None:
    sweep = {"algorithm.n_sync": [1, 8], "workers": [1, 4], "description": [HOSTILE, "plain"]}
    found = asgd_lab.sweep({**BOWL, "name": HOSTILE, "sweep": sweep}, out=tmp_path / "sweep", jobs=1)
    path = asgd_lab.report(found)
    seen = browser.look(path, tmp_path, "--dump-dom")
    assert seen.console == []
    assert seen.requests == []
    figures = len(re.findall(r"<figure[ >]", seen.dom))
    assert figures >= 9
    assert f'data-drawn="{figures}"' in seen.dom
    assert len(re.findall(r'class="plot js-plotly-plot"', seen.dom)) == figures
    assert seen.dom.count("<img") == 0
