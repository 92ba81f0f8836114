"""The keys of the tasks that train a network on data of the user's, or on data sets by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from asgd_lab.configuration import BareName, Count, Folder, Part, Positive, Size, Text, not_finite, refuse
from asgd_lab.errors import meant
from asgd_lab.task_keys.optimizers import SGD, Biases, Clip, Optimizer, Schedule


class SharedData(Part):
    """Every worker uses all samples, in its own order."""

    name: Literal["shared"]
    """The division of the samples."""


class Sharded(Part):
    """Every worker has its own part of the samples, of equal size, drawn at random."""

    name: Literal["sharded"]
    """The division of the samples."""


class Dirichlet(Part):
    """Every worker has its own part, skewed by label: each class is split by Dirichlet shares (Hsu et al. 2019)."""

    name: Literal["dirichlet"]
    """The division of the samples."""
    alpha: Positive
    """The smaller, the more skewed: at 100 all workers are similar, at 0.1 most have a few classes."""


class ByKey(Part):
    """Every worker owns whole keys of the data, such as users: all samples of one are one worker's."""

    name: Literal["by_key"]
    """The division of the samples. Keys are the column `key` of a CSV file, or the entry train_keys (N,) of whole
    numbers that a function package.module:factory returns beside the others. They are dealt to the workers from the
    one with the most samples on, each to the worker with the fewest; the seed decides among equals."""


Division = Annotated[SharedData | Sharded | Dirichlet | ByKey, Field(discriminator="name"), BareName()]


DATASETS = (
    *("digits", "fashion-mnist", "mnist", "kmnist", "fashion-mnist-pairs", "fashion-mnist-triples"),
    *("cifar10", "cifar100", "svhn", "stl10", "usps", "qmnist", "emnist-balanced", "emnist-byclass", "emnist-bymerge"),
    *("emnist-digits", "emnist-letters", "emnist-mnist", "image-folder", "csv", "numpy"),
)
"""Data sets by name; those behind emnist-mnist have options."""
_WITH_OPTIONS = ("image-folder", "csv", "numpy")


def _known_or_own(name: str) -> str:
    if ":" not in name and name not in DATASETS:
        allowed = ", ".join(repr(each) for each in DATASETS)
        refuse([("", f"must be {allowed} or package.module:factory; got {name!r}{meant(name, DATASETS)}")])
    return name


class NetworkKeys(Part):
    """The keys of all tasks that train a network."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """The precision of a minibatch's forward pass and loss. bfloat16: torch's autocast chooses which operations run in
    it; parameters, gradients, updates and evaluations stay float32."""
    schedule: Schedule | None = None
    """The schedule of its learning rate; null: constant."""
    clip: Clip | None = None
    """The limit of each minibatch's gradient; null: none."""
    batch_norm: Literal["local", "server"] = "local"
    """The owner of BatchNorm's running statistics. local: each replica has its own, and is evaluated with them; for the
    server's parameters they are estimated again on training samples, except in layers in evaluation mode. Other buffers
    that training changes are each replica's own too; the server's parameters are evaluated with those of worker 0.
    server: they are parameters like the others, fetched, pushed and evaluated, as are all floating-point buffers; only
    with push: delta."""
    local: list[Text] = Field(default=[], examples=[["head.*"]])
    """Patterns of names of parameters that are trained and stay with each replica: they are neither pushed nor fetched,
    and the server's parameters are evaluated with those of worker 0. Frozen parameters, which need no gradient, always
    stay: only what is trained moves, and counts as bytes."""
    size_bytes: Annotated[Size, Field(ge=1)] | None = None
    """Bytes of one push or one fetch, if a small network stands for a large one; null: those of its own vector. Only
    with backend sim."""
    scale: Count = 1
    """The number of minibatches of the studied system that one of this task stands for: it takes that many times
    hardware.compute's time, and all counts of minibatches in the scenario (n_sync, budget, warm_start, evaluate,
    schedule) are those of the studied system, and are divided. Recorded steps and minibatches are this task's. Only
    with backend sim."""


class ClassificationKeys(NetworkKeys):
    """The keys of a network that classifies, or of the user's own network, data and loss."""

    dataset: Annotated[Text, AfterValidator(_known_or_own), Field(examples=["digits", "my_package.data:make"])]
    """The data: digits (8 x 8, comes with the package), fashion-mnist, mnist, kmnist, qmnist, emnist-* (28 x 28),
    usps (16 x 16), cifar10, cifar100, svhn (32 x 32 in colour), stl10 (96 x 96), all as torchvision unpacks them in
    data_folder; two or three images of Fashion-MNIST at a time at 14 x 14, of 100 or 1,000 classes and without limit
    (fashion-mnist-pairs, -triples), image-folder (files in train/CLASS and val/CLASS of data_folder, such as ILSVRC
    2012), csv (a table of numbers in data_folder), numpy (arrays train_images, train_labels, test_images, test_labels
    in data_folder, files .npy or the members of one .npz), or
    package.module:factory, a function that returns a dict of tensors or arrays train_images, train_labels, test_images,
    test_labels, with samples in their first dimension. Integer and boolean inputs keep their type (but pixels, uint8 of
    (N, C, H, W), become float32); floating point becomes float32; integer labels become int64. This happens to each
    minibatch: arrays over memory-mapped files stay in their files, which all processes map."""
    dataset_options: dict[str, Any] = Field(default={})
    """Keywords for the data set's factory; for image-folder: resize, crop, flip, colours, ten_crops, test_samples,
    statistics_samples, threads, ahead; for csv: file, label (a column's name, or its position from 0; default: the
    last), key (a column, see data: by_key), test_file, or test_share and seed, header (default: true), delimiter,
    standardise (each input by its mean and deviation in the training samples; default: false), integers (inputs are
    whole numbers, and stay so; default: false); for numpy: file (.npz), the names of the four arrays, channels (last
    for pixels of (N, H, W, C)), standardise (pixels)."""
    data_folder: Annotated[Text | None, Folder()] = None
    """The folder of the data set's files; null: the default folders."""
    model: Annotated[Text, Field(examples=["mlp", "lenet", "resnet18", "my_package.my_module:make_model"])] = "mlp"
    """mlp, lenet, small, krizhevsky (2012), any classification model of torchvision, or package.module:factory. It is
    put into training mode; layers that its factory or its own train() leaves in evaluation mode stay so."""
    model_options: dict[str, Any] = Field(default={})
    """Keywords for the model's factory."""
    loss: Text | None = Field(default=None, examples=["my_package.my_module:my_loss"])
    """package.module:function of the model's outputs and the labels; it returns the mean over the minibatch, or a tuple
    (sum, weight); null: cross-entropy. An evaluation calls it once per minibatch of batch_size, the last one shorter:
    sums and weights give the exact mean, and a mean is weighted by its number of samples."""
    batch_size: Count = 32
    """Samples in a minibatch of one worker."""
    data: Division = SharedData(name="shared")
    """The division of the training samples among workers: a mapping, or a name alone."""
    optimizer: Optimizer = SGD
    """The optimizer of the local steps."""
    biases: Biases | None = None
    """Separate rates of the optimizer for biases (all parameters of one dimension); null: the same rates."""
    train_samples: Annotated[int, Field(ge=1, le=10**8)] | None = None
    """The number of training samples to use, the first ones; null: all, or a million pairs or triples."""

    @property
    def reads_folder(self) -> bool:
        """Whether the data set is read from files of a folder."""
        return self.dataset != "digits" and ":" not in self.dataset

    @model_validator(mode="after")
    def _finite(self) -> Self:
        refuse((*not_finite(self.model_options, "model_options"), *not_finite(self.dataset_options, "dataset_options")))
        if self.dataset_options and ":" not in self.dataset and self.dataset not in _WITH_OPTIONS:
            refuse([("dataset_options", f"cannot stand beside {self.dataset}, which takes none; remove it")])
        return self


def _is_own(name: str) -> str:
    if ":" not in name:
        refuse([("", f"must be package.module:Class; got {name!r}")])
    return name


class OwnKeys(NetworkKeys):
    """The keys of a class of the user's own."""

    task: Annotated[Text, AfterValidator(_is_own), Field(examples=["my_package.my_module:MyTask"])]
    """package.module:Class. Its methods: model(seed), a torch.nn.Module; batch(worker, workers, seed, step), any tree
    of tensors and a function of its arguments alone, or stream(worker, workers, seed), an endless iterator of such with
    state_dict() and load_state_dict(); loss(model, batch), the mean loss or (sum, weight), and behind it if you like a
    dict of metrics, each (sum, weight). Optional: optimizer(model), an optimizer or a list of some, and schedulers
    behind them; step(model, optimizers, batch), a whole minibatch in place of loss, which steps the optimizers and
    returns as loss does; evaluations(), pairs of a split's name and an iterable of minibatches. The metric error is
    that of minibatches and of target_error."""
    options: dict[str, Any] = Field(default={})
    """Keywords for the class."""
    optimizer: Optimizer | None = None
    """The optimizer of the local steps; null: that of the class's method optimizer, or SGD with lr 0.1."""

    @model_validator(mode="after")
    def _finite(self) -> Self:
        refuse(not_finite(self.options, "options"))
        return self
