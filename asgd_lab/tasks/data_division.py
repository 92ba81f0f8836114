"""Division of the training samples among workers: shared, in equal parts, or in parts skewed by label."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.streams import generator
from asgd_lab.tasks.samples import chunks

Indices = npt.NDArray[np.int64]


def divided(config: Any, labels: Tensor, workers: int, batch_size: int, seed: int) -> list[Indices] | None:
    """Each worker's samples, a partition of all of them; None where every worker uses all.

    `sharded` splits a permutation evenly. `dirichlet` splits every class by shares drawn from a symmetric Dirichlet
    distribution (Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution", section 3).
    """
    if config is None or config.name == "shared":
        return None
    parts: list[list[Indices]] = [[] for _ in range(workers)]
    if config.name == "sharded":
        for worker, part in enumerate(np.array_split(generator(seed, "parts").permutation(len(labels)), workers)):
            parts[worker].append(part)
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
