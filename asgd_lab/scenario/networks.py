"""The tasks that train a network: classification, a class of the user's own, and text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from asgd_lab.scenario.learned import Learned
from asgd_lab.task_keys.networks import ClassificationKeys, NetworkKeys, OwnKeys, SharedData
from asgd_lab.task_keys.text import TextKeys

if TYPE_CHECKING:
    from asgd_lab.tasks.base import Data, Task


class Network(NetworkKeys, Learned):
    """A task that trains a network."""

    def refuses(self, scenario: Any) -> Iterator[tuple[str, str]]:
        """BatchNorm's statistics on the server without deltas, and a stated scale without a virtual clock."""
        yield from super().refuses(scenario)
        if self.batch_norm == "server" and scenario.algorithm.push != "delta":
            message = "must be local with push: gradient, which has none for running statistics"
            yield "task.batch_norm", message
        for key, is_given in (("scale", self.scale > 1), ("size_bytes", self.size_bytes is not None)):
            if is_given and not scenario.backend.execution.simulated:
                yield f"task.{key}", f"needs backend sim; {scenario.backend.name} takes the time that it takes"


class Classification(ClassificationKeys, Network):
    """A network that classifies images; or the user's own network, data and loss."""

    has_error = True
    has_data = True
    data_keys = ("dataset", "data_folder", "dataset_options", "train_samples")

    name: Literal["classification"]
    """This task's name."""

    @property
    def depends_on_workers(self) -> bool:
        """As in the base class."""
        return not isinstance(self.data, SharedData)

    def load(self) -> Data:
        from asgd_lab.tasks import datasets

        return datasets.read(self)

    def make(self, seed: int, data: Data, workers: int) -> Task:
        from asgd_lab.tasks.classification import ClassificationTask

        return ClassificationTask(self, seed, data, workers)


class Own(OwnKeys, Network):
    """A class of your own with a model, minibatches and a loss, and if you like optimizers, a step and evaluations."""

    has_error = True  # if the class says so: see `Task.has_error`

    name: Literal["own"]
    """This task's name."""

    def make(self, seed: int, data: Data, workers: int) -> Task:
        from asgd_lab.tasks.own import OwnTask, brought

        return OwnTask(brought(self.task, self.options, seed), self.task, self, seed, data, workers)


class NextTokens(TextKeys, Network):
    """A transformer that predicts every next token of a text: language modelling at any size."""

    has_error = True
    has_data = True
    data_keys = ("data_folder", "corpus", "corpus_bytes", "tokenizer", "tokens", "test_tokens", "token_type",
                 "vocabulary", "context", "data")  # fmt: skip

    name: Literal["text"]
    """This task's name."""

    @property
    def reads_folder(self) -> bool:
        """Whether data_folder is read; where it is not, it is refused."""
        return True

    @property
    def depends_on_workers(self) -> bool:
        """As in the base class."""
        return not isinstance(self.data, SharedData)

    def load(self) -> Data:
        from asgd_lab.tasks.text import corpus

        return corpus.read(self)

    def make(self, seed: int, data: Data, workers: int) -> Task:
        from asgd_lab.tasks.own import OwnTask
        from asgd_lab.tasks.text.next_tokens import NextTokens

        own = NextTokens(self, data, seed, workers)
        return OwnTask(own, "text", self, seed, data, workers, self._batch)

    def _batch(self, task: Any, device: Any) -> Any:
        from asgd_lab.tasks.text import stacked  # imported here: few runs need it

        return stacked.batch(self, task, device)
