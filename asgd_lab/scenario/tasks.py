"""What is learned: the tasks a scenario can name, and the local optimizer; torch alone knows which optimizers exist."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from asgd_lab.scenario.base import Count, NonNegative, Part, Positive, Seconds, Text, refuse


def not_finite(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Every nan and infinity inside a free-form value, by its dotted key."""
    if isinstance(value, float) and not math.isfinite(value):
        yield key, "must be a finite number; got " + ("nan" if math.isnan(value) else "an infinity")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, item in items:
        yield from not_finite(item, f"{key}.{part}" if key else str(part))


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
    """A class of torch.optim, e.g. SGD, Adam or AdamW; every other key is a keyword of that class."""

    @property
    def options(self) -> dict[str, Any]:
        """The keywords beside the name."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _finite(self) -> Self:
        refuse(not_finite(self.options))
        return self


SGD = Optimizer.model_validate({"name": "SGD", "lr": 0.1})


class Quadratic(Part):
    """A noisy quadratic bowl: loss = 1/2 sum of curvature times coordinate squared; its minimum is at zero."""

    name: Literal["quadratic"]
    """This task's name."""
    curvature: Annotated[list[Positive], Field(min_length=1)]
    """The second derivative along each coordinate; as many coordinates as numbers. No unit."""
    noise: NonNegative = 0.0
    """The variance of one sample's gradient noise in each coordinate; a minibatch of B samples has noise / B."""
    batch_size: Count = 1
    """Samples in a minibatch."""
    start: float = 1.0
    """The initial value of every coordinate."""
    optimizer: Optimizer = SGD
    """The optimizer of the local steps."""


class Classification(Part):
    """A network that learns to tell images apart."""

    name: Literal["classification"]
    """This task's name."""
    dataset: Literal["digits", "fashion-mnist"]
    """The images: digits (8 x 8, comes with scikit-learn) or fashion-mnist (28 x 28, read from data_folder)."""
    data_folder: Text | None = None
    """Where the data set's files are; null: the folders that are searched by default."""
    model: Annotated[Text, Field(examples=["mlp", "lenet", "resnet18", "my_package.my_module:make_model"])] = "mlp"
    """mlp, lenet, any of torchvision's classification models by its name, or package.module:factory."""
    model_options: dict[str, Any] = Field(default={})
    """Keywords for the model's factory."""
    batch_size: Count = 32
    """Samples in a minibatch of one worker."""
    optimizer: Optimizer = SGD
    """The optimizer of the local steps."""
    train_samples: Count | None = None
    """Train on only so many samples, the first ones; null: on all."""

    @model_validator(mode="after")
    def _finite(self) -> Self:
        refuse(not_finite(self.model_options, "model_options"))
        return self


class Timing(Part):
    """Nothing is learned: messages of a stated size and steps of a stated length, to study time alone."""

    name: Literal["timing"]
    """This task's name."""
    size_bytes: Annotated[int, Field(ge=0)]
    """What one push or one fetch moves, in bytes."""
    step_s: Seconds | None = None
    """The mean time of one minibatch, in seconds; null: hardware.compute, or the preset that gives it, says so."""


Task = Annotated[Quadratic | Classification | Timing, Field(discriminator="name")]
