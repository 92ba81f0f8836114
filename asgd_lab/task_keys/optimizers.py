"""The local optimizer of a task, its schedule, clipping and rates of biases; the list of optimizers is torch's."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from asgd_lab.configuration import Count, NonNegative, Part, Positive, Text, not_finite, refuse
from asgd_lab.errors import meant


class Optimizer(Part):
    """The optimizer of each worker's local steps: a class of torch.optim and its keywords, such as lr and momentum."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {"name": "SGD", "lr": 0.1, "momentum": 0.9},
                {"name": "AdamW", "lr": 1e-3, "betas": [0.9, 0.95], "weight_decay": 0.01},
            ]
        },
    )

    name: Text
    """A class of torch.optim, e.g. SGD, Adam or AdamW, or package.module:Class; other keys are its keywords."""

    @property
    def options(self) -> dict[str, Any]:
        """The keywords beside the name."""
        return dict(self.model_extra or {})

    @property
    def has_state(self) -> bool:
        """Whether a step depends on earlier ones; of torch's optimizers only SGD without momentum has none."""
        return self.name != "SGD" or bool(self.options.get("momentum"))

    @model_validator(mode="after")
    def _finite(self) -> Self:
        refuse(not_finite(self.options))
        return self


TINY_GRADIENT = 1e-10  # a limit below it leaves steps that vanish beside 32-bit parameters
_SCHEDULES = ("constant", "step", "linear", "cosine")
_FALLING = ("linear", "cosine")
SGD = Optimizer.model_validate({"name": "SGD", "lr": 0.1})


def _known_or_own(name: str) -> str:
    if ":" not in name and name not in _SCHEDULES:
        allowed = ", ".join(repr(each) for each in _SCHEDULES)
        refuse([("", f"must be {allowed} or package.module:function; got {name!r}{meant(name, _SCHEDULES)}")])
    return name


class Schedule(Part):
    """The schedule of the learning rate: the optimizer's own lr, times a factor that follows a clock."""

    name: Annotated[Text, AfterValidator(_known_or_own), Field(examples=["cosine", "my_package.my_module:my_factor"])]
    """constant; step: times `factor` after each `every`; linear or cosine: from 1 to `final` within `length`; or
    package.module:function, a function of the clock's time, from 0 on, that returns the factor."""
    clock: Literal["steps", "versions"] = "steps"
    """steps: the worker's own minibatches; versions: the version of the parameters that it fetched last."""
    every: Count | None = None
    """For step: the interval between two changes, in units of the clock."""
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """For step: the factor of each change."""
    length: Count | None = None
    """For linear and cosine: the time from which on the factor is `final`, in units of the clock."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """For linear and cosine: the factor at the end."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """The length of a linear rise of the factor to 1 at the start, in units of the clock; linear and cosine fall after
    it."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {"step": "every", "linear": "length", "cosine": "length"}.get(self.name)
        if needed is not None and getattr(self, needed) is None:
            refuse([(needed, f"is missing; {self.name} needs it")])
        for key, owners in (("every", ("step",)), ("factor", ("step",)), ("length", _FALLING), ("final", _FALLING)):
            # Equal to its default it may be a written-out one.
            if getattr(self, key) != type(self).model_fields[key].default and self.name not in owners:
                refuse([(key, f"is not a key of {self.name}; remove it")])
        if self.length is not None and self.warmup >= self.length:
            refuse([("warmup", f"must be less than length, {self.length}; got {self.warmup}")])
        return self


class Clip(Part):
    """Limits each minibatch's gradient before the local step: by its norm or by value, exactly one of them."""

    norm: Positive | None = None
    """The largest Euclidean norm of the whole gradient."""
    value: Positive | None = None
    """The largest absolute value of each of its elements."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.norm is None) == (self.value is None):
            refuse([("", "give exactly one of norm and value")])
        return self


class Biases(Part):
    """Rates of the optimizer for parameters of one dimension, as Krizhevsky's cuda-convnet has them."""

    lr: Positive = 1.0
    """The factor on the optimizer's learning rate for them."""
    weight_decay: NonNegative | None = None
    """Their weight decay; null: the optimizer's."""
