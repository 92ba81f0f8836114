"""What is learned: the tasks a scenario can name, and the local optimizer; torch alone knows which optimizers exist."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from asgd_lab.configuration import (
    MOST,
    BareName,
    Count,
    Folder,
    NonNegative,
    Part,
    Positive,
    Seconds,
    Size,
    Text,
    refuse,
)
from asgd_lab.scenario.words import meant


def not_finite(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Every nan, infinity and number beyond `MOST` inside a free-form value, by its dotted key."""
    if isinstance(value, float) and not math.isfinite(value):
        yield key, "must be a finite number; got " + ("nan" if math.isnan(value) else "an infinity")
    elif isinstance(value, int | float) and abs(value) > MOST:
        yield key, f"must be between {-MOST:g} and {MOST:g}; got {value:.3g}"
    elif isinstance(value, int) and abs(value) >= 2**63:
        yield key, f"is a whole number of more than 64 bits; write it as {value:.3e}"
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
    """A class of torch.optim, e.g. SGD, Adam or AdamW, or package.module:Class; other keys are its keywords."""

    @property
    def options(self) -> dict[str, Any]:
        """The keywords beside the name."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _finite(self) -> Self:
        refuse(not_finite(self.options))
        return self


SGD = Optimizer.model_validate({"name": "SGD", "lr": 0.1})


class Schedule(Part):
    """How the learning rate changes: the optimizer's own lr, times a factor that follows a clock."""

    name: Literal["constant", "step", "linear", "cosine"]
    """constant; step: times factor after every so many; linear or cosine: down to final within length, and then so."""
    clock: Literal["steps", "versions"] = "steps"
    """steps: the worker's own minibatches; versions: of the parameters that it fetched last."""
    every: Count | None = None
    """For step: after how many of the clock."""
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """For step: by what it is multiplied each time."""
    length: Count | None = None
    """For linear and cosine: within how many of the clock."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """For linear and cosine: the factor at the end."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Within how many of the clock, from the first on, the factor rises linearly to its value."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {"step": "every", "linear": "length", "cosine": "length"}.get(self.name)
        if needed is not None and getattr(self, needed) is None:
            refuse([(needed, f"is missing; {self.name} needs it")])
        for key in ("every", "length"):
            if getattr(self, key) is not None and key != needed:
                refuse([(key, f"is not a key of {self.name}; remove it")])
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
    """By what the optimizer's learning rate is multiplied for them."""
    weight_decay: NonNegative | None = None
    """Their weight decay; null: the optimizer's."""


class SharedData(Part):
    """Every worker walks through all samples, in an order of its own."""

    name: Literal["shared"]
    """How the samples are divided."""


class Sharded(Part):
    """Every worker has its own part of the samples, of equal size, drawn at random."""

    name: Literal["sharded"]
    """How the samples are divided."""


class Dirichlet(Part):
    """Every worker has its own part, skewed by label: each class is dealt out by Dirichlet shares (Hsu et al. 2019)."""

    name: Literal["dirichlet"]
    """How the samples are divided."""
    alpha: Positive
    """The smaller, the more skewed: at 100 all workers are alike, at 0.1 most have a few classes."""


Division = Annotated[SharedData | Sharded | Dirichlet, Field(discriminator="name"), BareName()]


def _known_or_own(name: str) -> str:
    known = ("digits", "fashion-mnist", "fashion-mnist-pairs", "fashion-mnist-triples", "image-folder")
    if ":" not in name and name not in known:
        allowed = ", ".join(repr(each) for each in known)
        refuse([("", f"must be {allowed} or package.module:factory; got {name!r}{meant(name, known)}")])
    return name


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
    start: Annotated[float, Field(ge=-MOST, le=MOST)] = 1.0
    """The initial value of every coordinate."""
    optimizer: Optimizer = SGD
    """The optimizer of the local steps."""
    schedule: Schedule | None = None
    """How its learning rate changes; null: it does not."""


class Classification(Part):
    """A network that learns to tell images apart; or the user's own network, data and loss."""

    name: Literal["classification"]
    """This task's name."""
    dataset: Annotated[Text, AfterValidator(_known_or_own), Field(examples=["digits", "my_package.data:make"])]
    """The images: digits (8 x 8, comes with scikit-learn), fashion-mnist (28 x 28, read from data_folder), two or three
    of these at a time at 14 x 14, of 100 or 1,000 classes and without limit (fashion-mnist-pairs, -triples),
    image-folder (files in train/CLASS and val/CLASS of data_folder, such as ILSVRC 2012), or
    package.module:factory, which returns a dict of tensors train_images, train_labels, test_images, test_labels, of any
    shape whose first dimension is samples. Inputs that are integers or booleans keep their type (but pixels, uint8
    of (N, C, H, W), become float32); floating point becomes float32; labels that are integers become int64."""
    dataset_options: dict[str, Any] = Field(default={})
    """Keywords for the data set's factory; of image-folder: resize, crop, flip, colours, ten_crops, test_samples,
    statistics_samples, threads, ahead."""
    data_folder: Annotated[Text | None, Folder()] = None
    """Where the data set's files are; null: the folders that are searched by default."""
    model: Annotated[Text, Field(examples=["mlp", "lenet", "resnet18", "my_package.my_module:make_model"])] = "mlp"
    """mlp, lenet, small, krizhevsky (2012), any classification model of torchvision, or package.module:factory. It is
    put into training mode; layers that its factory or its own train() leaves in evaluation mode stay so."""
    model_options: dict[str, Any] = Field(default={})
    """Keywords for the model's factory."""
    loss: Text | None = Field(default=None, examples=["my_package.my_module:my_loss"])
    """package.module:function of what the model returns and labels, which returns the mean over the minibatch, or a
    tuple (sum, weight); null: cross-entropy. An evaluation calls it once a minibatch of batch_size, the last one
    shorter: of sums and weights it is the exact mean, and a mean counts as often as its minibatch has samples."""
    batch_size: Count = 32
    """Samples in a minibatch of one worker."""
    data: Division = SharedData(name="shared")
    """Whose the training samples are: a mapping, or a name alone."""
    optimizer: Optimizer = SGD
    """The optimizer of the local steps."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of a minibatch's forward pass and loss. bfloat16: torch's autocast chooses which operations run in it;
    parameters, gradients, updates and evaluations stay float32."""
    biases: Biases | None = None
    """What of the optimizer is different for biases (all parameters of one dimension); null: nothing."""
    schedule: Schedule | None = None
    """How its learning rate changes; null: it does not."""
    clip: Clip | None = None
    """What limits each minibatch's gradient; null: nothing."""
    batch_norm: Literal["local", "server"] = "local"
    """Whose the running statistics of BatchNorm are. local: each replica's own, which evaluates it; for the server's
    parameters they are estimated anew on training samples, but for layers in evaluation mode. Other buffers that
    training changes are each replica's own too; the server's parameters are evaluated with those of worker 0. server:
    they are parameters like the others, fetched, pushed and evaluated, as are all buffers of floating point; only with
    push: delta."""
    train_samples: Annotated[int, Field(ge=1, le=10**8)] | None = None
    """Train on only so many samples, the first ones; null: on all, and on a million of pairs or triples."""
    size_bytes: Annotated[Size, Field(ge=1)] | None = None
    """What one push or one fetch moves, in bytes, where a small network stands for a large one; null: its own vector.
    Only with backend sim."""
    scale: Count = 1
    """How many minibatches of the system that is studied one of this task stands for: it takes that many times
    hardware.compute's time, and all counts of minibatches in the scenario (n_sync, budget, warm_start, evaluate,
    schedule) are of that system, and are divided. Recorded steps and minibatches are this task's. Only with backend
    sim."""

    @model_validator(mode="after")
    def _finite(self) -> Self:
        refuse((*not_finite(self.model_options, "model_options"), *not_finite(self.dataset_options, "dataset_options")))
        if self.dataset_options and ":" not in self.dataset and self.dataset != "image-folder":
            refuse([("dataset_options", f"cannot stand beside {self.dataset}, which takes none; remove it")])
        return self


class Timing(Part):
    """Nothing is learned: messages of a stated size and steps of a stated length, to study time alone."""

    name: Literal["timing"]
    """This task's name."""
    size_bytes: Size
    """What one push or one fetch moves, in bytes."""
    step_s: Seconds | None = None
    """The mean time of one minibatch, in seconds; null: hardware.compute, or the preset that gives it, says so."""


Task = Annotated[Quadratic | Classification | Timing, Field(discriminator="name")]
