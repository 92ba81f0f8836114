"""A scenario file: read once, overridden, swept, validated; every error is FILE:LINE: key: what; what is allowed."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from pydantic import ValidationError

from asgd_lab.errors import ScenarioError
from asgd_lab.scenario import edits, places, presets, writing
from asgd_lab.scenario.faults import Fault, faults, show, unknown_key
from asgd_lab.scenario.keys import Path, covers, dotted, split
from asgd_lab.scenario.schema import Scenario
from asgd_lab.scenario.source import Source

Overrides = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """One scenario of a sweep; `name` is like algorithm.n_sync=10,workers=2, and empty where nothing is swept."""

    name: str
    values: dict[str, Any]
    scenario: Scenario


@dataclass(frozen=True, slots=True)
class Document:
    """A scenario file's data, and the line of each of its keys."""

    path: str
    _data: dict[str, Any] = field(repr=False)
    _positions: dict[Path, tuple[int, int]] = field(repr=False)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Document:
        """Read a file; what it says is validated by `scenario` and `points`."""
        name = os.fspath(path)
        try:
            with open(name, "rb") as file:
                content = file.read()
            text = content.decode("utf-8-sig")
        except FileNotFoundError:
            raise ScenarioError(f"{name}:1: no such file; give the path of a scenario file") from None
        except IsADirectoryError:
            raise ScenarioError(f"{name}:1: is a directory; give the path of a scenario file") from None
        except OSError as error:
            raise ScenarioError(f"{name}:1: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise ScenarioError(f"{name}:{line}: is not UTF-8 text; save the file as UTF-8") from None
        source = Source(where=lambda line: f"{name}:{line}").parse(text)
        if source.data is None:
            raise ScenarioError(f"{name}:1: is empty; must be a mapping with at least name, task, algorithm and budget")
        if not isinstance(source.data, dict):
            line = source.positions[()][0]
            raise ScenarioError(
                f"{name}:{line}: must be a mapping with keys name, task, algorithm, budget; got {show(source.data)}"
            )
        return cls(name, source.data, source.positions)

    def scenario(self, overrides: Overrides | None = None) -> Scenario:
        """The file's own scenario, its sweep (checked for its keys alone) still in it."""
        overrides = overrides or {}
        data = self._overridden(overrides)
        scenario, found = _validated(data)
        found += _sweep_faults(data.get("sweep"))
        if found or scenario is None:
            self._fail(found, overrides, data)
        return scenario

    def points(self, overrides: Overrides | None = None) -> list[Point]:
        """Every scenario of the sweep's product, the first key slowest; what is overridden is not swept."""
        overrides = overrides or {}
        data = self._overridden(overrides)
        sweep = data.get("sweep", {})
        common = _validated(data)[1]
        wrong = _sweep_faults(sweep) + [fault for fault in common if fault.path[0] == "sweep"]
        if wrong:
            swept = tuple(sweep) if isinstance(sweep, dict) else ()
            own = [fault for fault in common if not any(covers(key, fault.key) for key in swept)]
            self._fail(wrong + own, overrides, data)
        lists = [[(key, index, value) for index, value in enumerate(values)] for key, values in sweep.items()]
        return [self._point(data, choice, overrides, common) for choice in itertools.product(*lists)]

    def replicated(self, points: list[Point], seeds: int, overrides: Overrides | None = None) -> list[Point]:
        """Each of the points with so many seeds, counted from its own."""
        if "seed" in points[0].values:
            raise self.located(
                ScenarioError.at("sweep.seed", "cannot stand beside --seeds; give one of them"), overrides
            )
        return [_with_seed(point, point.scenario.seed + number) for point in points for number in range(seeds)]

    def located(self, error: ScenarioError, overrides: Overrides | None = None) -> ScenarioError:
        """The error with FILE:LINE of its key, or of the nearest key around it; as it is where it says so already."""
        if not error.key or str(error).startswith((f"{self.path}:", "--set ")):
            return error
        path = self._path(error.key)
        return ScenarioError.at(error.key, f"{self._where(path, overrides or {})[1]}: {error.key}: {error}")

    @staticmethod
    def dump(scenario: Scenario) -> str:
        """The scenario as YAML with every default written out; it reads back to an equal scenario."""
        return writing.dump(scenario.model_dump())

    def _overridden(self, overrides: Overrides) -> dict[str, Any]:
        data = copy.deepcopy(self._data)
        for key, value in overrides.items():
            _put(data, key, value, f"--set {key}: {key}")
        if isinstance(data.get("sweep"), dict):
            pinned = [key for key in data["sweep"] if any(covers(override, str(key)) for override in overrides)]
            for key in pinned:
                del data["sweep"][key]
        return data

    def _point(
        self, base: dict[str, Any], choice: tuple[tuple[str, int, Any], ...], overrides: Overrides, common: list[Fault]
    ) -> Point:
        data = {key: value for key, value in copy.deepcopy(base).items() if key != "sweep"}
        for key, index, value in choice:
            where = self._where(("sweep", key, index), overrides)[1]
            _put(data, key, value, f"{where}: sweep.{key}: at {writing.brief({key: value})}")
        for key, value in overrides.items():  # again: a sweep of a whole mapping does not undo what was set inside it
            if not covers("sweep", key):
                _put(data, key, value, f"--set {key}: {key}")
        name = writing.brief({key: value for key, _, value in choice})
        scenario, found = _validated(data)
        if scenario is None:
            blamed = [_blamed(fault, choice) if fault not in common else fault for fault in found]
            self._fail(blamed, overrides, data, note=name)
        return Point(name, {key: value for key, _, value in choice}, scenario)

    def _fail(self, found: Iterable[Fault], overrides: Overrides, data: dict[str, Any], note: str = "") -> NoReturn:
        first = min(found, key=lambda fault: self._where(fault.path, overrides)[0])
        where = self._where(first.path, overrides)[1]
        path = first.path
        if path[-1] == "name" and isinstance(_at(data, path[:-1]), str):
            path = path[:-1]  # a bare name: the reader wrote no key of that name
        key = first.written or dotted(path)
        giver = presets.giver(data.get("hardware"), path[1:]) if path[0] == "hardware" else None
        tail = f"; preset {giver!r} gives it" if giver else ""
        tail += f" (at the sweep's point {note})" if first.kind == "point" else ""
        raise ScenarioError.at(key, f"{where}: {key}: {first.message}{tail}")

    def _where(self, path: Path, overrides: Overrides) -> tuple[tuple[int, int], str]:
        """What sorts a path among others, and the words an error there begins with."""
        known = path
        while known not in self._positions and known:
            known = known[:-1]
        key, beyond = dotted(path), dotted(path[: len(known) + 1])
        for index, override in enumerate(overrides):
            # Set itself, or missing from a mapping that is there only because something in it was set.
            if covers(override, key) or (known != path and covers(beyond, override)):
                return (0, index), f"--set {override}"
        line, column = self._positions[known]
        return (line, column), f"{self.path}:{line if known else 1}"

    def _path(self, key: str) -> Path:
        """The path of a dotted key in this file, whose own keys may have dots in them (a sweep's do)."""
        path: Path = ()
        parts = key.split(".")
        while parts:
            heads: list[tuple[str | int, int]] = [(".".join(parts[:size]), size) for size in range(len(parts), 0, -1)]
            heads += [(part, 1) for part in split(parts[0])]  # as an index, where it is one
            known = [(head, size) for head, size in heads if (*path, head) in self._positions]
            if not known:
                return path + split(".".join(parts))
            path, parts = (*path, known[0][0]), parts[known[0][1] :]
        return path


def _with_seed(point: Point, seed: int) -> Point:
    values = {**point.values, "seed": seed}
    return Point(writing.brief(values), values, point.scenario.model_copy(update={"seed": seed}))


def parse_assignment(text: str) -> tuple[str, Any]:
    """KEY=VALUE to the dotted key and its value, which is read as YAML 1.2; no value at all is null."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key or not all(key.split(".")):
        raise ScenarioError(f"--set {text}: must be KEY=VALUE, with a dotted key such as algorithm.n_sync=10")
    return key, Source(where=lambda _: f"--set {key}: {key}").parse(value).data


def _put(data: dict[str, Any], key: str, value: Any, where: str) -> None:
    try:
        edits.put(data, key, value)
    except ScenarioError as error:
        raise ScenarioError.at(key, f"{where}: {error}") from None


def _validated(data: dict[str, Any]) -> tuple[Scenario | None, list[Fault]]:
    try:
        return Scenario.model_validate(data), []
    except ValidationError as error:
        return None, faults(error)


def _sweep_faults(sweep: object) -> list[Fault]:
    return list(_wrong_sweep_keys(sweep)) if isinstance(sweep, dict) else []


def _wrong_sweep_keys(sweep: dict[str, Any]) -> Iterator[Fault]:
    """What is wrong with a sweep whatever the values: keys the schema does not have, keys or values that repeat."""
    root = places.root()
    seen: list[str] = []
    for key, values in sweep.items():
        parts = split(key)
        known = next(depth for depth in range(len(parts), -1, -1) if root.walk(parts[:depth]))
        if parts[0] == "sweep":
            yield Fault(("sweep", key), "cannot be swept; sweep keys of the scenario other than sweep")
        elif known < len(parts):
            place = root.walk(parts[:known]) or root
            yield Fault(("sweep", key), unknown_key(parts[: known + 1], place).message)
        for other in seen:
            if covers(key, other):
                yield Fault(("sweep", key), f"would undo {other}; put it first, or sweep one of the two")
        seen.append(key)
        written = [writing.brief({key: value}) for value in values] if isinstance(values, list) else []
        for index, one in enumerate(written):
            if one in written[:index]:
                yield Fault(("sweep", key, index), f"has {one} twice; name each value once")


def _blamed(fault: Fault, choice: tuple[tuple[str, int, Any], ...]) -> Fault:
    """The fault of a point, laid at the swept value that it is in; where it is in none, it says at which point."""
    for key, index, value in reversed(choice):
        if covers(key, fault.key):
            inside = fault.path[len(split(key)) :]
            nested = f"{fault.key}: " if inside else ""
            message = f"at {writing.brief({key: value})}: {nested}{fault.message}"
            return Fault(("sweep", key, index, *inside), message, written=f"sweep.{key}")
    return Fault(fault.path, fault.message, kind="point")


def _at(data: Any, path: Path) -> Any:
    for part in path:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data
