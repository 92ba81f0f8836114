"""Choices that a scenario makes by `name`: a class of this package, of an installed plugin, or package.module:Name.

A registry has all names of one key. A new choice is a class in its registry; no other code tests its name.
"""

from __future__ import annotations

import copyreg
import functools
import inspect
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, get_args

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticCustomError, PydanticKnownError, core_schema

from asgd_lab import live_objects
from asgd_lab.configuration import Part, refuse
from asgd_lab.errors import ScenarioError
from asgd_lab.trust import Named, is_display, is_plugin, is_trusted, plugins

USERS_NAME = r"^[^:\s]+:[^:\s]+$"  # package.module:Name

_registries: dict[str, Registry] = {}


class Chosen(Part):
    """A mapping of the scenario whose `name` chooses a class."""

    registry: ClassVar[str]
    """The name of its registry, e.g. algorithms."""

    name: str
    """The name in a scenario."""


class Choice(Chosen):
    """A mapping that is itself an instance of the class that its name chooses."""

    def __reduce__(self) -> Any:
        """Pickle the class by name: the receiving process may have to import a user's module first."""
        return _blank, (self.registry, self.name), self.__getstate__()


class Unread(Choice):
    """A stand-in for a user's class that may not be imported: it accepts all keys, and cannot be built."""

    model_config = ConfigDict(extra="allow")

    def __reduce__(self) -> Any:
        """Pickle the instance itself: the receiver imports nothing."""
        return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]


def _registry(name: str) -> Registry:
    return _registries[name]


def _blank(registry: str, name: str) -> Any:
    found = _registries[registry].find(name)
    return found.__new__(found)


@dataclass(frozen=True, eq=False)
class Registry:
    """The names of one key of the scenario: `ours`, plugins by their entry points, and users' package.module:Name.

    `unread` stands in for a user's class that may not be imported. As metadata of a text's type, the registry makes
    pydantic validate the name.
    """

    name: str
    base: type[Any]
    ours: tuple[type[Any], ...]
    unread: type[Any]
    loaded: dict[str, type[Any]] = field(default_factory=dict)
    """Users' classes that this process has imported, by their names in scenarios."""

    def __post_init__(self) -> None:
        _registries[self.name] = self

    def __reduce__(self) -> Any:
        """Pickle the name: a class that refers to a registry finds the one of the process that receives it."""
        return _registry, (self.name,)

    def find(self, name: str) -> Any:
        """The class of that name; a `ScenarioError` at `name` says why there is none."""
        if name in self.names:
            return self.ours[self.names.index(name)]
        if self.is_unread(name):
            return self.unread
        where = self.where(name)
        from asgd_lab.tasks.code_imports import imported  # it imports torch, as what it finds will

        what = f"it must be a class below {self.base.__module__}:{self.base.__name__}"
        found: Any = imported("name", where, what)
        if not isinstance(found, type) or not issubclass(found, self.base):
            raise ScenarioError.at("name", f"{where} is not of the kind: {what}")
        if inspect.isabstract(found):
            missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
            raise ScenarioError.at("name", f"{where} must define {missing}")
        if self.loaded.get(name) is not found:
            self.loaded[name] = found
        return found

    @functools.cached_property
    def names(self) -> list[str]:
        """The names of this package's classes."""
        return [self.called(each) for each in self.ours]

    def is_unread(self, name: str) -> bool:
        """Whether the name is of a user's code that may not be imported."""
        if name in self.names or is_trusted():
            return False
        if live_objects.is_live(name):
            return is_display()
        return not is_plugin(self.where(name))

    def where(self, name: str) -> str:
        """The package.module:Name behind a name of a user's class."""
        return name if ":" in name else self.plugins().get(name, name)

    def plugins(self) -> dict[str, str]:
        """Entry points of installed distributions: package.module:Name by name; the current directory is not one."""
        return {point.name: point.value for point in plugins(self.name)}

    def described(self) -> dict[str, str]:
        """The first paragraph of each class's docstring, by name; for a plugin that cannot be imported, the error."""
        found = dict(zip(self.names, map(_first_paragraph, self.ours), strict=True))
        for name in self.plugins():
            try:
                found.setdefault(name, _first_paragraph(self.find(name)))
            except ScenarioError as error:
                found[name] = str(error)
        return found

    @staticmethod
    def called(ours: type[Any]) -> str:
        """The name of a class of this package."""
        return str(ours.called)

    def _is_theirs(self, name: str) -> bool:
        return ":" in name or (name not in self.names and name in self.plugins())

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """A name of this package's classes, or of a user's class."""
        return core_schema.no_info_wrap_validator_function(self._validated, core_schema.literal_schema(self.names))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """One of the known names, or any package.module:Name."""
        named = {"enum": [*self.names, *self.loaded], "type": "string"}
        return {"anyOf": [named, {"pattern": USERS_NAME, "type": "string"}]}

    def _validated(self, value: Any, ours: core_schema.ValidatorFunctionWrapHandler) -> Any:
        if not isinstance(value, str) or not self._is_theirs(value):
            return ours(value)
        try:
            self.find(value)
        except ScenarioError as error:
            refuse([("", str(error))])
        return value


class Mappings(Registry):
    """A registry of mappings: as metadata of a field's type it makes pydantic validate the whole mapping."""

    @staticmethod
    def called(ours: type[Any]) -> str:
        """The name of a class of this package."""
        return str(get_args(ours.model_fields["name"].annotation)[0])  # of Literal["its name"]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """This package's classes are a discriminated union; each value is serialised by its own class."""
        union = handler.generate_schema(
            Annotated[functools.reduce(operator.or_, self.ours), Field(discriminator="name")]
        )
        as_itself = core_schema.wrap_serializer_function_ser_schema(
            lambda value, serialize: serialize(value), schema=core_schema.any_schema()
        )
        return core_schema.no_info_wrap_validator_function(self._validated, union, serialization=as_itself)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """This package's classes, imported classes of users, and any package.module:Name."""
        known = handler(schema)
        theirs = []
        for name, found in self.loaded.items():
            full = handler.resolve_ref_schema(handler(found.__pydantic_core_schema__))
            called = {**full["properties"]["name"], "const": name}
            theirs.append({**full, "properties": {**full["properties"], "name": called}})
        called = {"type": "string", "pattern": USERS_NAME, "description": "The class, as package.module:Name."}
        own = {
            "type": "object",
            "description": "A class of your own, with its keys.",
            "properties": {"name": called},
            "required": ["name"],
            "additionalProperties": True,
        }
        return {**known, "oneOf": [*known["oneOf"], *theirs, own]}

    def _validated(self, value: Any, ours: core_schema.ValidatorFunctionWrapHandler) -> Any:
        if isinstance(value, self.base) and not isinstance(value, self.ours):
            return value
        name = value.get("name") if isinstance(value, Mapping) else None
        if not isinstance(name, str) or not self._is_theirs(name):
            return ours(value)
        try:
            found = self.find(name)
        except ScenarioError as error:
            refuse([("name", str(error))])
        try:
            return found.model_validate(value)
        except ValidationError as error:
            raise _tagged(error, name) from None
        except PydanticUserError as error:  # such as an annotation that names nothing
            refuse([("name", f"{name} is no whole class: {str(error).splitlines()[0]}")])


def _tagged(error: ValidationError, name: str) -> ValidationError:
    """The error with the name in its locations, as pydantic has it for a member of a union."""
    found: Any = [
        {"type": _kind(one), "loc": (name, *one["loc"]), "input": one["input"], "ctx": one.get("ctx", {})}
        for one in error.errors(include_url=False)
    ]
    return ValidationError.from_exception_data(error.title, found)


def _kind(one: Any) -> str | PydanticCustomError:
    try:
        return PydanticKnownError(one["type"], one.get("ctx")).type
    except KeyError:
        return PydanticCustomError(one["type"], "{text}", {"text": one["msg"], **one.get("ctx", {})})


def loaded() -> tuple[tuple[str, str, type[Any]], ...]:
    """All users' classes that this process has imported, with their registries and names."""
    return tuple((each.name, name, found) for each in _registries.values() for name, found in each.loaded.items())


def is_known(name: str) -> bool:
    """Whether a name is not a package.module:Name, or is one that this process has imported as a choice."""
    return ":" not in name or any(name in each.loaded for each in _registries.values())


def _first_paragraph(found: type[Any]) -> str:
    return " ".join((inspect.getdoc(found) or "").partition("\n\n")[0].split())


def has_class_of_ours(choice: Chosen) -> bool:
    """Whether it is an instance of one of this package's classes, whatever its `name` says."""
    return not isinstance(choice, Choice) or type(choice) in _registries[choice.registry].ours


def is_ours(choice: Chosen) -> bool:
    """Whether its class is one of this package's."""
    return choice.name in _registries[choice.registry].names


def unread(part: Part) -> Named:
    """The untrusted code of a configuration, which was not imported, by its dotted key."""
    return [(key, each.name) for key, each in _all_chosen(part) if _registries[each.registry].is_unread(each.name)]


def brought(part: Part) -> list[str]:
    """The package.module:Name of all chosen classes of users."""
    return [_registries[each.registry].where(each.name) for _, each in _all_chosen(part) if not is_ours(each)]


def _all_chosen(value: Any, key: str = "") -> Iterator[tuple[str, Chosen]]:
    if isinstance(value, Chosen):
        yield f"{key}.name", value
    if isinstance(value, Part):
        for name in type(value).model_fields:
            yield from _all_chosen(getattr(value, name), f"{key}.{name}" if key else name)
    for index, item in enumerate(value if isinstance(value, list) else ()):
        yield from _all_chosen(item, f"{key}.{index}")
