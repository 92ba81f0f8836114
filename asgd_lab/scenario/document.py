"""A scenario file: read once, overridden, swept, validated; every error is FILE:LINE: key: what; what is allowed.

A mapping in a Python program is such a document too: errors have its subscripts in the place of file, line and key.
"""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from pydantic import ValidationError

import asgd_lab.scenario.carried as carried
import asgd_lab.scenario.edits as edits
import asgd_lab.scenario.files as files
import asgd_lab.scenario.places as places
import asgd_lab.scenario.presets as presets
import asgd_lab.scenario.sweeping as sweeping
import asgd_lab.scenario.writing as writing
from asgd_lab.errors import MOST_LINES, ScenarioError, shortened
from asgd_lab.scenario.faults import Fault, faults, show
from asgd_lab.scenario.keys import Path, covers, dotted, split, subscripts
from asgd_lab.scenario.plain_data import Plain
from asgd_lab.scenario.points import MOST_RUNS, Point, Points
from asgd_lab.scenario.schema import MOST_SEED, Scenario
from asgd_lab.scenario.source import MOST_LEVELS, Source

Overrides = Mapping[str, Any]
_SWEPT = re.compile(r"--set '(sweep\.[^=]+)=(\[.*\])'$")  # a hint for the command line


@dataclass(frozen=True, slots=True)
class Document:
    """A scenario file's data, and the line of each of its keys; `path` is "" for a mapping of a program.

    `in_python`: its overrides are a program's mapping `changes`, and not options of the command line.
    """

    path: str
    _data: dict[str, Any] = field(repr=False)
    _positions: dict[Path, tuple[int, int]] = field(repr=False)
    in_python: bool = False

    @classmethod
    def of(cls, data: Mapping[str, Any], plain: Plain | None = None) -> Document:
        """The document of a program's mapping, without validation; `plain` makes plain data of its values."""
        plain = plain or Plain("scenario")
        return cls("", plain.of(data), plain.positions, in_python=True)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, in_python: bool = False) -> Document:
        """Read a file, or the carried scenario of that name, without validation: see `scenario` and `points`."""
        name = carried.located(os.fspath(path))
        text = files.read(name)
        source = Source(where=lambda line: f"{name}:{line}").parse(text)
        if source.data is None:
            raise ScenarioError(f"{name}:1: is empty; must be a mapping with at least name, task, algorithm and budget")
        if not isinstance(source.data, dict):
            line = source.positions[()][0]
            raise ScenarioError(
                f"{name}:{line}: must be a mapping with keys name, task, algorithm, budget; got {show(source.data)}"
            )
        return cls(name, source.data, source.positions, in_python)

    def scenario(self, overrides: Overrides | None = None) -> Scenario:
        """The file's own scenario with its sweep, of which only the keys are checked."""
        overrides = overrides or {}
        data = self._overridden(overrides)
        scenario, found = _validated(data)
        found += sweeping.faults(data)
        if found or scenario is None:
            self._fail(found, overrides, data)
        return scenario

    def points(self, overrides: Overrides | None = None) -> Points:
        """Every scenario of the sweep's product, the first key slowest; overridden keys are not swept."""
        overrides = overrides or {}
        data = self._overridden(overrides)
        sweep = data.get("sweep") or {}
        common = _validated(data)[1]
        wrong = sweeping.faults(data) + [fault for fault in common if fault.path[0] == "sweep"]
        swept = tuple(sweep) if isinstance(sweep, dict) else ()
        # A value that the sweep replaces must be valid in itself, although unused; its missing keys may come later.
        replaced = [fault for fault in common if any(covers(key, fault.key) for key in swept)]
        wrong += [fault for fault in replaced if fault.kind not in ("missing", "contradiction")]
        if wrong:
            own = [fault for fault in common if fault not in replaced and fault not in wrong]
            self._fail(wrong + own, overrides, data)
        lists = [[(key, index, value) for index, value in enumerate(values)] for key, values in sweep.items()]
        count = math.prod(map(len, lists))
        self._check_count(count, "sweep", overrides)

        def make(number: int) -> Point:
            point = self._point(data, sweeping.choice(lists, number), overrides, common)
            assert isinstance(point, Point), "the first pass has found no fault"
            return point

        self._go_through(data, lists, overrides, common)
        return Points(count, make)

    def replicated(self, points: Sequence[Point], seeds: int, overrides: Overrides | None = None) -> Points:
        """Each point with `seeds` seeds, from its own on."""
        if "seed" in points[0].values:
            option = "seeds" if self.in_python else "--seeds"
            raise self.located(
                ScenarioError.at("sweep.seed", f"cannot stand beside {option}; give one of them"), overrides
            )
        self._check_count(len(points) * seeds, "--seeds", overrides)
        for point in points:
            if point.scenario.seed + seeds - 1 > MOST_SEED:
                raise ScenarioError(f"--seeds: {seeds:,} seeds from {point.scenario.seed} on are beyond {MOST_SEED}")

        def make(number: int) -> Point:
            point = points[number // seeds]
            return _with_seed(point, point.scenario.seed + number % seeds)

        return Points(len(points) * seeds, make)

    def located(self, error: ScenarioError, overrides: Overrides | None = None) -> ScenarioError:
        """The error with FILE:LINE of its key, or of the nearest key around it; unchanged if it has a place already."""
        placed = ("scenario[", "changes[") if self.in_python else ("--set ",)
        if not error.key or str(error).startswith((f"{self.path}:", *placed)):
            return error
        said = self._said(self._path(error.key), overrides or {}, error.key)
        # A refusal of code names the key, as there may be several.
        message = str(error).replace(f" ({error.key})", "", 1)
        return ScenarioError.at(error.key, f"{said}: {message}")

    @staticmethod
    def dump(scenario: Scenario) -> str:
        """The scenario as YAML with all defaults; it reads back to an equal scenario."""
        return writing.dump(scenario.model_dump())

    def _overridden(self, overrides: Overrides) -> dict[str, Any]:
        data = copy.deepcopy(self._data)
        for key, value in overrides.items():
            _put(data, key, value, self._said(split(key), {key: value}))
        if "sweep" in overrides and data.get("sweep") is None:
            data["sweep"] = {}
        if isinstance(data.get("sweep"), dict):
            pinned = [key for key in data["sweep"] if any(covers(override, str(key)) for override in overrides)]
            for key in pinned:
                del data["sweep"][key]
        return data

    def _check_count(self, count: int, key: str, overrides: Overrides | None) -> None:
        if count > MOST_RUNS:
            said = f"{count:,}" if count < 10**30 else "countless"
            message = f"makes {said} runs; at most {MOST_RUNS:,} are one command's"
            raise (
                ScenarioError(f"{key}: {message}")
                if key[0] == "-"
                else self.located(ScenarioError.at(key, message), overrides)
            )

    def _go_through(
        self, data: dict[str, Any], lists: list[list[tuple[str, int, Any]]], overrides: Overrides, common: list[Fault]
    ) -> None:
        """Raise the faults of all points, each once."""
        found: list[Fault] = []
        for number in range(math.prod(map(len, lists))):
            point = self._point(data, sweeping.choice(lists, number), overrides, common)
            if not isinstance(point, Point):
                known = {(fault.path, fault.message) for fault in found}
                found += [fault for fault in point if (fault.path, fault.message) not in known]
            if len(found) > 2 * MOST_LINES:
                break
        if found:
            self._fail(found, overrides, data)

    def _point(
        self, base: dict[str, Any], choice: sweeping.Choice, overrides: Overrides, common: list[Fault]
    ) -> Point | list[Fault]:
        data = copy.deepcopy({key: value for key, value in base.items() if key != "sweep"})
        for key, index, value in choice:
            where = self._said(("sweep", key, index), overrides, f"sweep.{key}")
            _put(data, key, value, f"{where}: at {sweeping.brief({key: value})}")
        for key, value in overrides.items():  # again, since a sweep of a whole mapping would undo overrides inside it
            if not covers("sweep", key):
                _put(data, key, value, self._said(split(key), {key: value}))
        name = writing.brief({key: value for key, _, value in choice})
        scenario, found = _validated(data)
        if scenario is None:
            return [sweeping.blamed(fault, choice, name) if fault not in common else fault for fault in found]
        return Point(name, {key: value for key, _, value in choice}, scenario)

    def _fail(self, found: Iterable[Fault], overrides: Overrides, data: dict[str, Any]) -> NoReturn:
        """Raise all faults, in the order of the file."""
        ordered = sorted(found, key=lambda fault: self._order(fault.path, overrides))
        lines = [self._line(fault, overrides, data) for fault in ordered]
        raise ScenarioError.all_of(self._key(ordered[0], data), dict.fromkeys(lines))

    @staticmethod
    def _key(fault: Fault, data: dict[str, Any]) -> str:
        path = fault.path
        if path[-1] == "name" and isinstance(_at(data, path[:-1]), str):
            path = path[:-1]  # a bare name: the reader wrote no key of that name
        return fault.written or dotted(path)

    def _line(self, fault: Fault, overrides: Overrides, data: dict[str, Any]) -> str:
        path, message = fault.path, fault.message
        giver = presets.giver(data.get("hardware"), path[1:]) if path[0] == "hardware" else None
        tail = f"; preset {giver!r} gives it" if giver else ""
        tail += f" (at the sweep's point {shortened(fault.point, 160)})" if fault.point else ""
        if self.in_python:
            message = _SWEPT.sub(r'changes={"\1": \2}', message)
        return f"{self._said(path, overrides, self._key(fault, data))}: {message}{tail}"

    def _said(self, path: Path, overrides: Overrides, key: str = "") -> str:
        """The beginning of a message about a path: its place, and its key, or `key` instead."""
        key, override = key or dotted(path), self._override(path, overrides)
        said, known = shortened(key, 120), self._known(path)
        if override is not None and not self.in_python:
            about = f"--set {shortened(override, 120)}"
            return about if override == key else f"{about}: {said}"
        if override is not None:
            about = "changes" + subscripts((shortened(override, 120),))
            return about if override == key else f"{about}: {said}"
        if not self.path:
            return shortened("scenario" + subscripts(split(key)), 160)
        return f"{self.path}:{self._positions[known][0] if known else 1}: {said}"

    def _order(self, path: Path, overrides: Overrides) -> tuple[int, int]:
        """A sort key: overrides in their order, then the document's keys in theirs."""
        override = self._override(path, overrides)
        return self._positions[self._known(path)] if override is None else (0, list(overrides).index(override))

    def _override(self, path: Path, overrides: Overrides) -> str | None:
        """The override that gave a path: that set it, or the only cause of the mapping from which it is missing."""
        known = self._known(path)
        key, beyond = dotted(path), dotted(path[: len(known) + 1])
        for override in overrides:
            if covers(override, key) or (known != path and covers(beyond, override)):
                return override
        return None

    def _known(self, path: Path) -> Path:
        """The longest beginning of a path that is in the document."""
        while path not in self._positions and path:
            path = path[:-1]
        return path

    def _path(self, key: str) -> Path:
        """The path of a dotted key in this file; keys of the file may contain dots (a sweep's do)."""
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
        said = shortened(text, 80)
        raise ScenarioError(f"--set {said}: must be KEY=VALUE, with a dotted key such as algorithm.n_sync=10")
    said = shortened(key, 80)
    if key.count(".") > MOST_LEVELS:
        raise ScenarioError(f"--set {said}: has more than {MOST_LEVELS} keys; no scenario is as deep")
    return key, Source(where=lambda _: f"--set {said}").parse(value).data


def as_assignment(argument: str, following: str = "") -> str:
    """The KEY=VALUE that an argument may have meant: workers=8, --workers=8 or --workers 8; "" where it is none."""
    key, equals, value = argument.removeprefix("--").partition("=")
    value = value if equals or not argument.startswith("--") else following
    is_key = places.root().walk(split(key)) is not None and key != ""
    return shortened(f"{key}={value}", 80) if is_key and value else ""


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


def _at(data: Any, path: Path) -> Any:
    for part in path:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data
