"""Division of the training samples among workers: shared, in equal parts, skewed by label, or by a key."""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.streams import generator
from asgd_lab.task_keys.networks import Division
from asgd_lab.tasks.samples import chunks

Indices = npt.NDArray[np.int64]


def divided(
    config: Division, labels: Tensor, workers: int, batch_size: int, seed: int, keys: Tensor | None = None
) -> list[Indices] | None:
    """Each worker's samples, a partition of all of them; None where every worker uses all.

    `sharded` splits a permutation evenly. `dirichlet` splits every class by shares drawn from a symmetric Dirichlet
    distribution (Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution", section 3).
    """
    if config.name == "shared":
        return None
    parts: list[list[Indices]] = [[] for _ in range(workers)]
    if config.name == "sharded":
        for worker, part in enumerate(np.array_split(generator(seed, "parts").permutation(len(labels)), workers)):
            parts[worker].append(part)
    elif config.name == "by_key":
        _deal(parts, keys, seed)
    else:
        classes = torch.cat(list(chunks(labels))).numpy()
        for label in np.unique(classes).tolist():
            random = generator(seed, "parts", label)
            mine = random.permutation(np.flatnonzero(classes == label))
            shares = random.dirichlet(np.full(workers, config.alpha))
            cuts = np.rint(np.cumsum(shares)[:-1] * len(mine)).astype(np.int64)
            for worker, part in enumerate(np.split(mine, cuts)):
                parts[worker].append(part)
    found = [np.sort(np.concatenate(part)).astype(np.int64) for part in parts]
    for worker, part in enumerate(found):
        if len(part) < batch_size:
            message = f"worker {worker} gets {len(part)} samples, and a minibatch has {batch_size}"
            hint = "; give a larger alpha, fewer workers or another seed" if config.name == "dirichlet" else ""
            raise ScenarioError.at("task.data", message + hint)
    return found


def _deal(parts: list[list[Indices]], keys: Tensor | None, seed: int) -> None:
    """Add the samples of whole keys to each worker's part."""
    if keys is None:
        message = "by_key needs keys: the column dataset_options.key of csv, or an entry train_keys of the factory"
        raise ScenarioError.at("task.data", message)
    _, inverse, counts = np.unique(keys.numpy(), return_inverse=True, return_counts=True)
    samples = np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])
    for part, owned in zip(parts, dealt(counts, len(parts), seed, "keys"), strict=True):
        part += [samples[key] for key in owned]


def dealt(sizes: Indices, workers: int, seed: int, what: str) -> list[list[int]]:
    """The owned keys of each worker: from the largest key on, each to the worker with the least so far.

    `sizes` (K,) counts the samples of each key; the seed decides among equal ones. A `ScenarioError` if there are more
    workers than keys, which `what` names.
    """
    if workers > len(sizes):
        raise ScenarioError.at("workers", f"{workers} is more than the {len(sizes)} {what} of task.data")
    drawn = generator(seed, "parts").permutation(len(sizes))
    owned: list[list[int]] = [[] for _ in range(workers)]
    loads = [(0, worker) for worker in range(workers)]
    for key in drawn[np.argsort(-sizes[drawn], kind="stable")].tolist():
        load, worker = heapq.heappop(loads)
        owned[worker].append(key)
        heapq.heappush(loads, (load + int(sizes[key]), worker))
    return owned
