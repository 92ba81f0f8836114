"""Which tests `make test-fast` leaves out: those of slow.txt, which `make slow-list` measures and writes.

A new test is fast until the list is measured again. The quickest are kept, as many as take `FAST_S` of one core.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("slow.txt")
FAST_S = 45.0  # of one core, beside what starting and collecting takes
SHARED_S = 1.0  # a longer preparation is one that other tests of the file use too, and that the first of them pays
OPTION = "--measure-slow"
ALWAYS = frozenset({  # fast, whatever they take: a real run, the same budget on every backend, a simulation's files
    "tests/backends/test_process.py::test_an_interrupted_run_keeps_its_tables",
    "tests/backends/test_agreement.py::test_a_budget_of_minibatches_is_used_exactly",
    "tests/cli/test_commands.py::test_a_run_leaves_the_run_directory_of_the_contract_and_says_its_numbers",
})  # fmt: skip


def function(node: str) -> str:
    """A test by its file and name, whatever its parameters."""
    return node.partition("[")[0].partition("@")[0]


def listed() -> set[str]:
    """The functions that are slow."""
    return set(LIST.read_text(encoding="utf-8").split())


def mark(items: Iterable[pytest.Item]) -> None:
    """Mark them."""
    slow = listed()
    for item in items:
        if function(item.nodeid) in slow:
            item.add_marker(pytest.mark.slow)


def slowest(seconds: Counter[str], within_s: float) -> list[str]:
    """All but ALWAYS and the quickest, whose seconds add up to no more than `within_s`; in the order of their names."""
    left_s, slow = within_s - sum(seconds[name] for name in ALWAYS), []
    for name, took_s in sorted(seconds.items(), key=lambda item: item[1]):
        if name in ALWAYS:
            continue
        left_s -= took_s
        if left_s < 0:
            slow.append(name)
    return sorted(slow)


class Measuring:
    """Adds up what each function takes, in the process that hears all reports, and writes the list at the end."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.prepared: Counter[str] = Counter()  # by file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Setting up, the call, and taking down, of each set of parameters."""
        name = function(report.nodeid)
        self.seconds[name] += report.duration
        if report.when == "setup" and report.duration > SHARED_S:
            self.prepared[name.partition("::")[0]] += report.duration

    def pytest_sessionfinish(self) -> None:
        """The list; each test of a file with a dear preparation would pay it, if it were the first."""
        for name in self.seconds:
            self.seconds[name] += self.prepared[name.partition("::")[0]]
        LIST.write_text("".join(f"{name}\n" for name in slowest(self.seconds, FAST_S)), encoding="utf-8")
