"""Feeds map a step to its minibatch, from tensors in memory or from image files that are decoded ahead of their use.

A feed is a pure function of its step: the number of threads and of minibatches read ahead changes only the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, final

import torch
from torch import Tensor

from asgd_lab.streams import generator
from asgd_lab.tasks.base import Data
from asgd_lab.tasks.data_division import Indices
from asgd_lab.tasks.image_folders import ImageFolders, Options
from asgd_lab.tasks.samples import labels_of, pick

Order = Callable[[int], Tensor]
"""Maps a step to the indices (B,) of its minibatch."""
Feed = Callable[[int], Tensor]
"""Maps a step to its inputs (B, ...)."""


def walk(
    seed: int, worker: int, samples: int, batch_size: int, device: torch.device, part: Indices | None = None
) -> Order:
    """The worker's own order: a new permutation of the training set, or of its share of it, in each epoch.

    The last partial minibatch of an epoch is dropped.
    """
    samples = samples if part is None else len(part)
    batches = samples // batch_size
    walked, indices = -1, torch.empty(0)

    def order(step: int) -> Tensor:
        nonlocal walked, indices
        epoch, batch = divmod(step, batches)
        if epoch != walked:  # cached for speed alone: it is a function of (seed, worker, epoch)
            permutation = generator(seed, "order", worker, epoch).permutation(samples)
            permutation = permutation if part is None else part[permutation]
            walked, indices = epoch, torch.from_numpy(permutation).to(device)
        return indices[batch * batch_size : (batch + 1) * batch_size]

    return order


@final
class Indexed:
    """One worker's minibatches of samples that have an index: inputs and labels, in its order."""

    def __init__(self, order: Order, feed: Feed, labels: Tensor) -> None:
        self.order, self._feed, self._labels = order, feed, labels

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        labels = labels_of(self._labels, self.order(step))
        return self._feed(step), labels

    def state(self) -> dict[str, Tensor]:
        """Nothing: any step can be read at once."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to restore."""

    def again(self) -> Indexed:
        """Itself: it is a function of the step."""
        return self


class Source(Protocol):
    """The source of a task's inputs."""

    @property
    def of_files(self) -> bool:
        """Whether the inputs are read from a tree of image files."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        ...

    def feed(self, seed: int, worker: int, order: Order) -> Feed:
        """A worker's training inputs, in its order."""
        ...

    def views(self, split: str, index: Tensor) -> list[Tensor]:
        """Views of the samples (B,) of "train" or "test" to evaluate: one, or several to average over."""
        ...


@final
class Stored:
    """Tensors in memory, with one view of each sample."""

    of_files = False

    def __init__(self, data: Data) -> None:
        self._data = data
        first = torch.zeros(1, dtype=torch.int64, device=data["train_images"].device)
        self.shape = tuple(pick(data, "train", first).shape[1:])

    def feed(self, seed: int, worker: int, order: Order) -> Feed:
        """As `Source.feed`; there is no augmentation, so the seed is unused."""
        data = self._data
        return lambda step: pick(data, "train", order(step))

    def views(self, split: str, index: Tensor) -> list[Tensor]:
        return [pick(self._data, split, index)]


@final
class Decoded:
    """Image files, decoded and augmented by threads, some minibatches ahead."""

    of_files = True

    def __init__(self, folders: ImageFolders, device: torch.device) -> None:
        self._folders, self._device, self._ahead = folders, device, folders.options.ahead
        self._pool: ThreadPoolExecutor | None = None  # its threads start at first use, so never before a fork
        self.shape = folders.shape

    def feed(self, seed: int, worker: int, order: Order) -> Feed:
        """Crops, flips and colours are functions of (seed, worker, step, place in the minibatch)."""
        waiting: dict[int, list[Future[Tensor]]] = {}

        def asked(step: int) -> list[Future[Tensor]]:
            self._pool = self._pool or ThreadPoolExecutor(self._folders.options.threads, "decoder")
            return [
                self._pool.submit(self._folders.augmented, int(sample), (seed, worker, step, place))
                for place, sample in enumerate(order(step).tolist())
            ]

        def feed(step: int) -> Tensor:
            for each in [each for each in waiting if not step <= each <= step + self._ahead]:
                for future in waiting.pop(each):
                    future.cancel()
            for each in range(step, step + self._ahead + 1):
                if each not in waiting:
                    waiting[each] = asked(each)
            return torch.stack([future.result() for future in waiting.pop(step)]).to(self._device)

        return feed

    def views(self, split: str, index: Tensor) -> list[Tensor]:
        """The central crop, then the nine other crops over which Krizhevsky et al. average (section 4.1)."""
        self._pool = self._pool or ThreadPoolExecutor(self._folders.options.threads, "decoder")
        crops = list(self._pool.map(lambda sample: self._folders.crops(split, sample), index.tolist()))
        return [view.to(self._device) for view in torch.stack(crops, 1)]


def source_of(data: Data, options: Mapping[str, Any], device: torch.device) -> Source:
    """A source of files if the data name files, else of tensors."""
    return Decoded(ImageFolders(data, Options.of(options)), device) if "train_files" in data else Stored(data)
