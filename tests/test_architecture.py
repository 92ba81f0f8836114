"""The direction of the arrows, read off the source: who imports whom, and how long a module is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import simpy

import asgd_lab
from asgd_lab.backends.sim.clock import Clock

PACKAGE = Path(asgd_lab.__file__).parent
LONGEST = 340  # lines of a module: if it grows beyond, it has two subjects
CONCURRENT = {"asyncio", "concurrent", "multiprocessing", "simpy", "socket", "subprocess", "threading", "time"}


@dataclass(frozen=True)
class Import:
    """One import: of `target` (dotted), by `module`; `deferred` if it runs when a function does, or never.

    `by_way_of` is the module that an import of names is from: `a` in `from a import b`.
    """

    module: str
    target: str
    line: int
    deferred: bool
    by_way_of: str = ""

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def under(name: str, *roots: str) -> bool:
    """Whether a dotted name is one of these modules, or inside one."""
    return any(name == root or name.startswith(root + ".") for root in roots)


def imports_in(module: str, source: str) -> Iterator[Import]:
    """All of them, wherever they stand. What follows `if TYPE_CHECKING` never runs."""
    tree = ast.parse(source)
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    while waiting:
        node, deferred = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name, node.lineno, deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")
                package = package[: len(package) - node.level]
                base = ".".join([*package, *([base] if base else [])])
            # `from a import b` may import the module a.b: the longer name is the sharper one.
            yield from (Import(module, f"{base}.{alias.name}", node.lineno, deferred, base) for alias in node.names)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            waiting.append((child, deferred or inside or typing_only))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
IMPORTS = [each for module, path in FILES.items() for each in imports_in(module, path.read_text(encoding="utf-8"))]


def ours(part: str, at: list[Import] = IMPORTS) -> list[Import]:
    """What a part of the package imports of the package itself, outside that part."""
    part = f"asgd_lab.{part}"
    inside = [each for each in at if under(each.module, part) and under(each.target, "asgd_lab")]
    return [each for each in inside if not under(each.target, part) and each.target != "asgd_lab"]  # its version


def file_of(target: str) -> str | None:
    """The file of the package that an import reads: the module itself, or the one that has the name."""
    while target and target not in FILES:
        target = target.rpartition(".")[0]
    return target or None


def circles(imports: list[Import]) -> list[list[str]]:
    """Files that import one another, directly or by way of others, each circle once.

    Whenever an import runs: one in a function, or for the type checker alone, ties two files together all the same.
    `from package import file` can be read as an import of the file, or of the package's face: both readings count.
    """
    graph: dict[str, set[str]] = {}
    for each in imports:
        for found in {file_of(each.target), file_of(each.by_way_of)} - {None, each.module}:
            graph.setdefault(each.module, set()).add(str(found))

    def reached(module: str) -> set[str]:
        seen: set[str] = set()
        waiting = [module]
        while waiting:
            for other in graph.get(waiting.pop(), set()) - seen:
                seen.add(other)
                waiting.append(other)
        return seen

    reach = {module: reached(module) for module in graph}
    found = {
        tuple(sorted(other for other in reach[module] if module in reach.get(other, set())))
        for module in graph
        if module in reach[module]
    }  # fmt: skip
    return [list(circle) for circle in sorted(found)]


def reaching(part: str, *targets: str) -> list[Import]:
    return [each for each in IMPORTS if under(each.module, f"asgd_lab.{part}") and under(each.target, *targets)]


ALLOWED = {
    "protocol": {"errors"},
    "algorithms": {"errors", "choices", "configuration", "protocol", "task_keys", "tasks", "trust", "users_errors"},
    "task_keys": {"errors", "configuration"},
    "tasks": {"errors", "free_memory", "live_objects", "streams", "task_keys", "trust", "users_code"},
    "scenario": {
        *("errors", "algorithms", "choices", "configuration", "live_objects", "loggers", "task_keys", "tasks", "trust"),
    },
    "hardware": {"errors", "configuration", "streams", "scenario"},
    "record": {"errors", "cgroups", "free_memory"},
    "loggers": {"errors", "choices", "configuration", "record", "users_code"},
    "figures": {"errors", "loggers", "record"},
    "reports": {
        *("errors", "comparisons", "figures", "metric_words", "record", "scenario", "summary_words", "sweep_tables"),
        *("__version__", "choices", "sweep_records", "trust"),
    },
    "backends": {
        "errors",
        "choices",
        "free_memory",
        "live_objects",
        "loggers",
        "streams",
        "protocol",
        "task_keys",
        "tasks",
        "hardware",
        "record",
        "scenario",
        "trust",
        "users_errors",
        "interrupts",
    },
    "counterfactual": {
        *("errors", "backends", "figures", "protocol", "record", "recorded_code", "replays", "scenario", "streams"),
        *("arguments", "metric_words", "task_keys", "tasks", "users_errors"),
    },
    "app": {
        *("api", "backends", "calibrations", "catalogue", "comparisons", "errors", "figures", "interrupts"),
        *("counterfactual", "metric_words", "reports"),
        *("model_export", "new_scenarios", "output", "record", "replays", "request", "run_points", "scenario"),
        *("summary_words", "sweep_figure", "sweep_tables", "trust", "validation", "__version__", "runs", "watching"),
    },
}


@pytest.mark.parametrize("part", ALLOWED)
def test_a_part_imports_only_the_parts_that_its_arrows_point_to(part: str) -> None:
    allowed = [f"asgd_lab.{other}" for other in ALLOWED[part]]
    assert [str(each) for each in ours(part) if not under(each.target, *allowed)] == []


def test_every_folder_of_the_package_has_its_arrows() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == set(ALLOWED)


def test_the_protocol_knows_no_clock_no_process_and_no_io() -> None:
    assert [str(each) for each in reaching("protocol", *CONCURRENT, "io", "os", "pathlib", "random", "numpy")] == []


def test_tasks_do_not_know_who_calls_them() -> None:
    found = [each for each in reaching("tasks", *CONCURRENT) if each.module != "asgd_lab.tasks.feeds"]
    assert [str(each) for each in found] == []
    # Files are decoded by threads, whose number changes nothing but time.
    assert {each.target for each in reaching("tasks.feeds", *CONCURRENT)} == {
        "concurrent.futures.Future", "concurrent.futures.ThreadPoolExecutor"
    }  # fmt: skip


def test_a_scenario_is_read_without_torch() -> None:
    assert [str(each) for each in reaching("scenario", "torch", "torchvision", *CONCURRENT)] == []
    needing_torch = reaching("algorithms", "torch", "torchvision", "asgd_lab.protocol", "asgd_lab.tasks", *CONCURRENT)
    needing_torch += reaching("scenario", "asgd_lab.tasks") + reaching("task_keys", "torch")
    assert [str(each) for each in needing_torch if not each.deferred] == []


@pytest.mark.parametrize("part", ["hardware", "record"])
def test_hardware_and_record_need_neither_simpy_nor_torch(part: str) -> None:
    assert [str(each) for each in reaching(part, "simpy")] == []
    assert [str(each) for each in reaching(part, "torch", "torchvision") if not each.deferred] == []


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("simpy", "asgd_lab.backends.sim"),
        ("multiprocessing", "asgd_lab.backends.real"),
        ("socket", "asgd_lab.backends.real.transports"),
        ("mmap", ("asgd_lab.backends.real.transports", "asgd_lab.record")),
    ],
)
def test_a_library_of_one_part_is_imported_nowhere_else(library: str, home: str | tuple[str, ...]) -> None:
    users = [each for each in IMPORTS if under(each.target, library)]
    assert users, f"nobody imports {library}: this test has lost its subject"
    assert [str(each) for each in users if not under(each.module, *((home,) if isinstance(home, str) else home))] == []


def test_figures_read_tables_only() -> None:
    assert [str(each) for each in reaching("figures", "torch", "simpy")] == []


def test_nothing_imports_the_command_line() -> None:
    users = [each for each in IMPORTS if under(each.target, "asgd_lab.app") and not under(each.module, "asgd_lab.app")]
    assert [str(each) for each in users if each.module != "asgd_lab.__main__"] == []


def test_nobody_below_the_command_line_imports_a_backend() -> None:
    inside = [f"asgd_lab.{part}" for part in ALLOWED if part not in ("backends", "counterfactual", "app")]
    users = [each for each in IMPORTS if under(each.target, "asgd_lab.backends") and under(each.module, *inside)]
    assert [str(each) for each in users] == []


def test_no_files_import_one_another_in_a_circle() -> None:
    assert circles(IMPORTS) == []


CLOCK = "asgd_lab.backends.sim.clock"


def test_only_the_owner_of_the_heap_knows_simpy_and_the_inside_of_the_clock() -> None:
    """Private names of simpy's environments and events, and of our clock, on whatever but `self`."""
    environment = simpy.Environment()
    inside = {*vars(environment), *dir(simpy.Event(environment)), *dir(Clock())}
    private = {name for name in inside if name.startswith("_") and not name.startswith("__")}
    assert {"_now", "_queue", "_eid", "_heap"} <= private
    assert {each.module for each in IMPORTS if under(each.target, "simpy")} == {CLOCK}
    for module, path in FILES.items():
        if module == CLOCK or not under(module, "asgd_lab.backends.sim"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in private:
                assert ast.unparse(node.value) == "self", f"{module}:{node.lineno} uses {ast.unparse(node)}"


@pytest.mark.parametrize("module", FILES)
def test_a_module_has_one_subject(module: str) -> None:
    lines = FILES[module].read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST, f"{module} has {lines} lines; if it grows, it has two subjects"


def test_the_finder_of_circles_sees_those_that_are_hidden_from_the_interpreter() -> None:
    """The names are those of files that are there."""
    one, two, three = (f"asgd_lab.backends.sim.{name}" for name in ("accounts", "network", "rows"))
    sources = {
        one: f"from {two} import X",
        two: f"if TYPE_CHECKING:\n    from {three} import Y",
        three: "def f():\n    from asgd_lab.backends.sim import accounts",
    }
    imports = [each for module, source in sources.items() for each in imports_in(module, source)]
    assert circles(imports) == [[one, two, three]]
    assert circles(imports[1:]) == []
    assert circles([*imports[1:], Import(two, f"{three}.Y", 1, True)]) == []


def test_the_finder_of_circles_reads_an_import_of_a_file_by_way_of_the_face_of_its_package() -> None:
    face, one, two = "asgd_lab.scenario", "asgd_lab.scenario.document", "asgd_lab.scenario.places"

    def found(of_one: str) -> list[list[str]]:
        sources = {face: f"from {one} import X", one: of_one}
        return circles([each for module, source in sources.items() for each in imports_in(module, source)])

    assert found(f"from {face} import places") == found("from . import places") == [[face, one]]
    assert found(f"import {two} as places") == found(f"from {two} import Y") == found("from .places import Y") == []


def test_the_reader_of_imports_sees_all_ways_to_import() -> None:
    source = """
import a.b, c as d
from e import f
from . import g
from ..h.i import j
if TYPE_CHECKING:
    import k
def one():
    import l
    class Two:
        import m
class Three:
    import n
"""
    found = {(each.target, each.deferred) for each in imports_in("asgd_lab.x.y", source)}
    assert found == {
        *(("a.b", False), ("c", False), ("e.f", False), ("asgd_lab.x.g", False), ("asgd_lab.h.i.j", False)),
        *(("k", True), ("l", True), ("m", True), ("n", False)),
    }
