"""Schemas of the JSON files of a run directory: each key that the package reads, and the type of its value.

A checksum says that a file is as it was written, not who wrote it: anybody can compute one. So a reader of these files
gets every key that it needs, of the type that it needs, or one ScenarioError. Other keys may hold anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, StrictBool, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic takes only this one before Python 3.12

from asgd_lab.record import atomic_files

Count = Annotated[int, Field(ge=0, strict=True)]
Number = Annotated[float, Field(strict=True)]
Positive = Annotated[float, Field(ge=0, strict=True)]
Text = Annotated[str, Field(strict=True)]
Plain = Annotated[str, Field(strict=True, pattern=r"^[\w-]+(\.[\w-]+)+$")]
"""The name of a file in one folder, without a separator: it cannot lead elsewhere."""


class _Source(TypedDict):
    file: Text
    sha256: Text


class _LiveObject(TypedDict):
    object: Text
    sha256: Text
    source: NotRequired[Text]


class _Data(TypedDict):
    sha256: Text


class _WarmStart(TypedDict):
    run: Text
    params_sha256: Text


class _Inputs(TypedDict, total=False):
    folder: Text
    code: dict[Text, _Source | _LiveObject]
    data: _Data
    warm_start: _WarmStart


class _Manifest(TypedDict):
    status: Literal["running", "done", "interrupted", "failed"]
    format: NotRequired[Count]
    semantics: NotRequired[Count]
    inputs: NotRequired[_Inputs]
    files: NotRequired[dict[Text, Text]]
    sizes: NotRequired[dict[Text, int]]
    scenario_sha256: NotRequired[Text]
    signature: NotRequired[Text | None]
    versions: NotRequired[dict[Text, Text | None]]
    arithmetic: NotRequired[dict[Text, Text | Count | None]]
    resumed: NotRequired[list[Any]]


class _Staleness(TypedDict):
    mean: Positive
    max: Count
    histogram: dict[Text, Count]


class _Utilisation(TypedDict):
    workers: Positive
    server: Positive


class _Time(TypedDict):
    mean: dict[Text, Positive]
    per_worker: list[dict[Text, Positive]]


class _Resource(TypedDict):
    name: Text
    utilisation: Positive


class _Load(TypedDict):
    others: Positive
    steal: Positive


class _Overruns(TypedDict):
    minibatches: Count
    share: Positive


class _Begun(TypedDict):
    """The summary of a run that failed before it had numbers: little more than its failure."""

    status: NotRequired[Literal["done", "interrupted", "failed"]]
    failure: NotRequired[Text]
    warnings: NotRequired[list[Text]]
    logs: NotRequired[dict[Text, Text]]
    emulated: NotRequired[StrictBool]
    clock: NotRequired[Text]
    staleness_counts: NotRequired[Text]
    time: NotRequired[_Time]
    resources: NotRequired[list[_Resource]]
    ended_by: NotRequired[Text]
    early_stop: NotRequired[dict[Text, Number | None]]
    startup_s: NotRequired[Number]  # negative in a resumed run of an earlier version
    started_unix_s: NotRequired[Number]
    machine_load: NotRequired[_Load]
    overruns: NotRequired[_Overruns]
    lateness: NotRequired[dict[Text, Number | None]]


class _Summary(_Begun):
    backend: Text
    workers: Count
    seed: Count
    makespan_s: Positive
    minibatches: Count
    updates: Count
    pushes: Count
    dropped: Count
    dropped_minibatches: Count
    minibatches_per_s: Positive
    staleness: _Staleness
    utilisation: _Utilisation
    final: dict[Text, Number | None]
    params_sha256: Text


class _State(TypedDict):
    version: Count
    minibatches: Count
    events: Count
    elapsed_ns: Count
    workers: list[Count]
    rows: dict[Plain, Count]
    row_checksums: NotRequired[dict[Plain, Count | None]]
    files: NotRequired[dict[Plain, Text | None]]


class _Swept(TypedDict):
    name: Text
    values: dict[Text, Any]
    seed: Count
    scenario: Text
    has_target: StrictBool
    folder: Annotated[str, Field(strict=True, pattern=r"^[^./\x00][^/\x00]*$")]


class _Sweep(TypedDict):
    points: Annotated[list[_Swept], Field(min_length=1)]


_MANIFEST = TypeAdapter(_Manifest)
_SUMMARY = TypeAdapter(_Summary)
_BEGUN = TypeAdapter(_Begun)
_STATE = TypeAdapter(_State)
_SWEEP = TypeAdapter(_Sweep)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest at this path; ScenarioError if it is missing, damaged, or no run's."""
    return _checked(path, atomic_files.read_json(path), _MANIFEST)


def read_summary(path: Path) -> dict[str, Any]:
    """The summary at this path; ScenarioError if it is missing, damaged, or no run's."""
    found = atomic_files.read_json(path)
    has_numbers = found.get("status") == "done" or "updates" in found
    return _checked(path, found, _SUMMARY if has_numbers else _BEGUN)


def read_state(path: Path) -> dict[str, Any]:
    """The state of a checkpoint at this path; ScenarioError if it is missing, damaged, or no checkpoint's."""
    return _checked(path, atomic_files.read_json(path), _STATE)


def read_sweep(path: Path) -> dict[str, Any]:
    """The points of a sweep at this path; ScenarioError if it is missing, damaged, or no sweep's."""
    return _checked(path, atomic_files.read_json(path), _SWEEP)


def _checked(path: Path, value: dict[str, Any], shape: TypeAdapter[Any]) -> dict[str, Any]:
    try:
        shape.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key, message = ".".join(map(str, first["loc"])), first["msg"]
        raise atomic_files.damaged(path, f"{key}: {message[:1].lower()}{message[1:]}") from None
    return value
