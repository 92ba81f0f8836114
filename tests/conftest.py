"""What every test shares: one torch thread, hypothesis profiles without wall-clock deadlines, and signals.

A shell that runs `make test &` in a script has its children ignore Ctrl-C, and nohup the end of a terminal; the
programs that tests start and interrupt would inherit that.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from asgd_lab import choices
from asgd_lab.reports import page
from tests import slow

# What is collected is compiled once for all processes, also where the environment forbids bytecode, which costs each of
# them 15 s; files that tests write are not.
_BYTECODE = sys.dont_write_bytecode, sys.pycache_prefix
if sys.dont_write_bytecode:
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)
torch.set_num_threads(1)
os.fsync = lambda descriptor: None  # no test outlives the machine, and a small run would wait for the disk 20 times
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="asgd-lab-tests-")  # the key that records are signed by
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)
hypothesis.settings.register_profile("lab", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("lab")
_TEMPORARY = os.path.join(tempfile.gettempdir(), "pytest-of-")


@pytest.fixture(autouse=True)
def _no_reports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process write no report, as without its library; tests of reports do."""
    if "/reports/" not in str(request.path):
        monkeypatch.setattr(page, "library_path", lambda: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(slow.OPTION, action="store_true", help="write slow.txt from what the tests take")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption(slow.OPTION) and not hasattr(config, "workerinput"):
        if config.option.markexpr or config.option.keyword or config.args_source != pytest.Config.ArgsSource.TESTPATHS:
            raise pytest.UsageError(f"{slow.OPTION} needs all tests: what was not run would be called fast")
        config.pluginmanager.register(slow.Measuring())


def pytest_collection_finish() -> None:
    sys.dont_write_bytecode, sys.pycache_prefix = _BYTECODE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow.mark(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """Forget modules that a test has written and imported, and their classes: another test may write the same names."""
    known = set(sys.modules)
    chosen = {each.name: dict(each.loaded) for each in choices._registries.values()}
    result = yield
    for each in choices._registries.values():
        each.loaded.clear()
        each.loaded.update(chosen.get(each.name, {}))
    for name in set(sys.modules) - known:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(_TEMPORARY):
            del sys.modules[name]
    return result
