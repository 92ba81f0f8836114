"""Live objects: classes and functions of this process that a scenario names, such as those of a notebook's cell.

An object that any process can import has the name package.module:Name. Any other gets a live name, such as
live:MyTask-1a2b3c4d5e6f with a digest of its pickled form, and this process keeps it. A pickled scenario brings the
live objects that it names: so processes that this one starts receive them, over the pipe from their parent. None is
written to a file, and none is read from a file.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import operator
import pickle
import re
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from asgd_lab.configuration import Part
from asgd_lab.errors import ScenarioError, shortened
from asgd_lab.object_sources import source_of

MOST_BYTES = 2**26  # of an object as it travels: each process of a run receives it
_DIGITS = 12  # of the digest, in a name
_NAME = re.compile(r"live:[\w.]+-\w+")  # no attribute has a hyphen: none of these is an object of a module `live`
_PARTS = ("task", "algorithm", "backend", "log")  # of a scenario: they name code
_NAMED_MAPPINGS = ("algorithm", "optimizer", "schedule", "backend")

Travelling = tuple[str, bytes, dict[str, str]]
"""An object's live name, its pickled form, and the facts about it for the record."""


class _Live(NamedTuple):
    value: Any
    pickled: bytes
    facts: dict[str, str]  # object: its qualified name; sha256: of the pickled form; source: where it is found


_kept: dict[str, _Live] = {}


def stand_in(value: object, key: str = "") -> str | dict[str, str]:
    """The name of an object at a dotted key of a scenario, or the mapping with this name where a mapping stands.

    A `ScenarioError` says why an object cannot stand there; it begins with a verb, and has no key.
    """
    path = key.split(".")
    if path[0] == "sweep":
        path = [part for part in path[1:] if not part.isdecimal()]
    if any(part.endswith("options") for part in path) or (path[-2:-1] == ["optimizer"] and path[-1] != "name"):
        raise ScenarioError("must be plain data; an object can stand where a file has package.module:Name")
    try:
        name = named(value)
    except ScenarioError:
        raise
    except Exception as error:  # of a method of the value's, such as __getattr__
        raise ScenarioError(f"cannot be read: {type(value).__name__} raised {type(error).__name__}") from error
    if path == ["task"] and not hasattr(value, "registry"):
        return {"name": "own", "task": name}
    return {"name": name} if path == ["task"] or path[-1] in _NAMED_MAPPINGS else name


def named(value: object) -> str:
    """The name of a class, a function or an own task for a scenario; this process keeps what it cannot import.

    A `ScenarioError` without a key says why the object cannot travel to the processes of a run.
    """
    if (importable := _importable(value)) is not None:
        return importable
    for of, each in [("is", value), *((f"uses {name}, which is", each) for name, each in _captured(value))]:
        if hasattr(each, "_torchdynamo_orig_callable") or type(each).__name__ == "OptimizedModule":
            raise ScenarioError(f"{_called(value)} {of} compiled by torch.compile, and cannot travel to processes")
    if isinstance(value, types.ModuleType) or not (callable(value) or hasattr(value, "model")):
        raise ScenarioError(f"must be plain data, a class or a function; got {_kind(value)}")
    pickled = _pickled(value)
    digest = hashlib.sha256(pickled).hexdigest()
    names = (f"live:{_called(value)}-{digest[:digits]}" for digits in range(_DIGITS, len(digest) + 1))
    name = next(each for each in names if each not in _kept or _kept[each].facts["sha256"] == digest)
    facts = {"object": f"{_definition(value).__module__}.{_called(value)}", "sha256": digest}
    if (source := source_of(_definition(value))) is not None:
        facts["source"] = source
    _kept[name] = _Live(value, pickled, facts)
    return name


def is_live(name: str) -> bool:
    """Whether this is the form of a live name."""
    return _NAME.fullmatch(name) is not None


def found(key: str, name: str) -> Any:
    """The object of a live name; a `ScenarioError` at `key` if it is not of this process."""
    if name not in _kept:
        raise ScenarioError.at(key, _elsewhere(name))
    return _kept[name].value


def absent(scenario: Part) -> Iterator[tuple[str, str]]:
    """The keys of a scenario whose live objects are not of this process, with the reason."""
    return ((key, _elsewhere(name)) for key, name in _live_names(scenario) if name not in _kept)


def travelling(scenario: Part) -> dict[str, Travelling]:
    """The live objects that a scenario names, by their keys, as they travel to another process."""
    return {key: (name, *_kept[name][1:]) for key, name in _live_names(scenario) if name in _kept}


def receive(objects: Mapping[str, Travelling]) -> None:
    """Read live objects that the process's parent has sent."""
    for name, pickled, facts in objects.values():
        if name not in _kept:
            _kept[name] = _Live(pickle.loads(pickled), pickled, facts)


def recorded(scenario: Part) -> dict[str, dict[str, str]]:
    """For the manifest: each live object's qualified name, its source where it is found, and the digest."""
    return {name: dict(_kept[name].facts) for _, name in _live_names(scenario) if name in _kept}


def changed(code: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A line for each live object in a manifest that differs now: it or a value that it uses was changed."""
    lines = []
    for name, facts in code.items():
        if name in _kept:
            try:
                digest = hashlib.sha256(_dumps(_kept[name].value)).hexdigest()
            except Exception:
                digest = ""  # it could travel before
            if digest != facts.get("sha256"):
                lines.append(f"{name}, or a value that it uses, has changed since")
    return lines


def _live_names(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The texts of a part that are live names, by their dotted keys; texts of free-form mappings name no code."""
    if isinstance(value, str):
        if is_live(value):
            yield key, value
    elif isinstance(value, Part):
        for name in type(value).model_fields if key else _PARTS:
            yield from _live_names(getattr(value, name, None), f"{key}.{name}" if key else name)
    for index, item in enumerate(value if isinstance(value, list) else ()):
        yield from _live_names(item, f"{key}.{index}")


def _elsewhere(name: str) -> str:
    what = "was defined in a notebook or a script, not in this process"
    return f"{name} {what}; it runs and replays only where it is defined: asgd_lab.replay(run)"


def _importable(value: object) -> str | None:
    """The package.module:Name by which any process finds this very object; of torch's optimizers the name alone."""
    module_name, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module_name, str) or not isinstance(qualname, str) or module_name == "__main__":
        return None
    try:
        if operator.attrgetter(qualname)(sys.modules[module_name]) is not value or not _is_in_a_file(module_name):
            return None
    except (AttributeError, KeyError):
        return None
    if module_name.startswith("torch.optim.") and getattr(sys.modules["torch.optim"], qualname, None) is value:
        return qualname
    return f"{module_name}:{qualname}"


def _is_in_a_file(module_name: str) -> bool:
    """Whether another process that searches the same path finds the same module."""
    spec = getattr(sys.modules[module_name], "__spec__", None)
    parent = sys.modules.get(module_name.rpartition(".")[0])
    if spec is None or (parent is None and "." in module_name):
        return False
    finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
    path = None if parent is None else getattr(parent, "__path__", None)
    again = next((each for find in finders if find and (each := find(module_name, path))), None)
    return again is not None and again.origin == spec.origin


def _definition(value: Any) -> Any:
    """The class or the function that a reader would look up."""
    if isinstance(value, functools.partial):
        return _definition(value.func)
    return value if isinstance(getattr(value, "__qualname__", None), str) else type(value)


def _called(value: object) -> str:
    qualname = str(_definition(value).__qualname__).rpartition("<locals>.")[2]
    return re.sub(r"[^\w.]", "", qualname)[:60] or "object"


def _kind(value: object) -> str:
    return f"the module {value.__name__}" if isinstance(value, types.ModuleType) else f"a {type(value).__qualname__}"


def _pickled(value: object) -> bytes:
    try:
        pickled = _dumps(value)
    except Exception as error:
        said = shortened(" ".join(f"{type(error).__name__}: {error}".split()), 200)
        raise ScenarioError(f"{_called(value)} cannot travel to processes{_to_blame(value)}: {said}") from error
    if len(pickled) > MOST_BYTES:
        largest = max(_captured(value), key=lambda one: _size(one[1]), default=None)
        what = "" if largest is None else f", most of it {largest[0]}"
        message = f"has {len(pickled):,} bytes as it travels to each process{what}; at most {MOST_BYTES:,} are allowed"
        raise ScenarioError(f"{_called(value)} {message}: let it read or make its data when it is called")
    return pickled


def _size(value: object) -> int:
    try:
        return len(_dumps(value))
    except Exception:
        return 0


def _to_blame(value: object) -> str:
    for name, one in _captured(value):
        try:
            _dumps(one)
        except Exception:
            return f", because of {name}"
    return ""


def _captured(value: Any) -> list[tuple[str, object]]:
    """The attributes of an object, and the variables outside of them that its functions use, by name."""
    inside = [] if isinstance(value, types.FunctionType) else list(getattr(value, "__dict__", {}).items())
    members = [value, *getattr(_definition(value), "__dict__", {}).values()]
    for function in (getattr(each, "__func__", each) for each in members):
        if isinstance(function, types.FunctionType):
            try:
                used = inspect.getclosurevars(function)
            except ValueError:  # a variable without a value yet
                continue
            inside += [*used.nonlocals.items(), *used.globals.items()]
    return [(name, one) for name, one in inside if not name.startswith("__") and one is not value]


def _dumps(value: object) -> bytes:
    file = io.BytesIO()
    _pickler()(file).dump(value)
    return file.getvalue()


@functools.cache
def _pickler() -> type[pickle.Pickler]:
    import cloudpickle  # only where there is a live object

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        """Also pickles functions with a cache, and classes as they were defined: see `_as_defined`."""

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, functools._lru_cache_wrapper) and _importable(obj) is None:
                return _cached, (obj.__wrapped__, obj.cache_parameters())
            reduced = super().reducer_override(obj)
            if isinstance(obj, type) and isinstance(reduced, tuple) and len(reduced) > 2:
                attributes, slots = reduced[2]
                defined = {name: _as_defined(name, each) for name, each in attributes.items()}
                reduced = (*reduced[:2], (defined, slots), *reduced[3:])
            return reduced

    return Pickler


def _as_defined(name: str, attribute: Any) -> Any:
    """A class's attribute without what libraries add: torch a profiler's hook around an optimizer's `step` at its first
    use, pydantic all variables around the class.
    """
    if isinstance(attribute, types.FunctionType) and getattr(attribute, "hooked", False):
        return getattr(attribute, "__wrapped__", attribute)
    return None if name == "__pydantic_parent_namespace__" else attribute


def _cached(function: Any, parameters: Mapping[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)
