"""Network: the whole of Krizhevsky et al. 2012 on image files, minibatches of 128, by one and by two real workers.

Beside it the bare loop on one thread, over tensors; and how many pictures of ILSVRC's size a thread decodes, crops and
colours, which is what a GPU would have to be fed with: 128 pictures in a K20X's 1.03 s are 125 a second.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from asgd_lab.backends.run import execute
from asgd_lab.scenario import Document
from asgd_lab.tasks.image_folders import ImageFolders, Options, read
from asgd_lab.tasks.krizhevsky import krizhevsky
from tests.benchmarks.report import Row

SCENARIO = Path(__file__).parents[2] / "scenarios" / "ilsvrc-2012.yaml"
BATCH, MINIBATCHES, REPEATS = 128, 2, 2
PICTURES = 256  # of 500 by 375 pixels, which is what most of ILSVRC's have; of as many classes


def tree(root: Path, pictures: int) -> None:
    """Smooth colours with some noise, so that the files are of about 100 kB, as ILSVRC's."""
    random = np.random.default_rng(0)
    for number in range(pictures):
        coarse = Image.fromarray(random.integers(0, 255, (25, 34, 3), dtype=np.uint8)).resize((500, 375))
        pixels = np.clip(np.asarray(coarse) + random.normal(0, 12, (375, 500, 3)), 0, 255).astype(np.uint8)
        for split in ("train", "val"):
            (root / split / f"{number:04}").mkdir(parents=True)
            Image.fromarray(pixels).save(root / split / f"{number:04}" / "0.jpeg", quality=85)


def ours(root: Path, workers: int, batch: int, model: str) -> float:
    """Seconds a minibatch, of each worker, synchronisation every second one."""
    (point,) = Document.read(SCENARIO).points({
        "task.data_folder": str(root), "task.model": model, "task.batch_size": batch, "workers": workers,
        "backend.device": "cpu", "backend.checkpoint": None,
        "algorithm.n_sync": MINIBATCHES, "budget": {"minibatches": workers * MINIBATCHES}, "evaluate": None,
        "task.dataset_options": {"ten_crops": False, "test_samples": 1, "threads": 1}, "record": "summary",
    })  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        summary = execute(point.scenario, Path(folder) / "run")
    return float(workers / summary["minibatches_per_s"])


def bare(pictures: int, batch: int) -> float:
    """Seconds a minibatch of the loop that a user of PyTorch would write."""
    network, random = krizhevsky((3, 224, 224), pictures), torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=0.0005)
    images, labels = torch.randn(batch, 3, 224, 224, generator=random), torch.arange(batch)
    for step in range(MINIBATCHES + 1):
        if step == 1:
            began = time.perf_counter()
        optimizer.zero_grad()
        cross_entropy(network(images), labels).backward()
        optimizer.step()
    return (time.perf_counter() - began) / MINIBATCHES


def decoded(root: Path, pictures: int) -> float:
    """Pictures a second of one thread."""
    folders = ImageFolders(read(str(root), {}, None), Options())
    began = time.perf_counter()
    for sample in range(pictures):
        folders.augmented(sample, (0, 0, 0, sample))
    return pictures / (time.perf_counter() - began)


def measure(tiny: bool) -> Iterator[Row]:
    """Seconds, and ratios."""
    pictures, batch, repeats = (8, 2, 1) if tiny else (PICTURES, BATCH, REPEATS)
    model = "small" if tiny else "krizhevsky"
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        tree(root, pictures)
        found = [
            (bare(pictures, batch), ours(root, 1, batch, model), ours(root, 2, batch, model), decoded(root, pictures))
            for _ in range(repeats)
        ]
    loop, one, two, rate = zip(*found, strict=True)
    network = f"the network of Krizhevsky et al. 2012, minibatches of {batch}, one thread a worker"
    yield Row(f"a minibatch of a bare loop over tensors, {network}", loop, "s", told=False)
    yield Row(f"a minibatch on image files, {network}, 1 worker", one, "s")
    yield Row("the same, against the bare loop", [own / other for own, other in zip(one, loop, strict=True)], "times")
    yield Row("the same, 2 workers, of each", two, "s")
    faster = [2 * single / both for single, both in zip(one, two, strict=True)]
    yield Row("the same, 2 workers together", faster, "times as fast as 1")
    yield Row("pictures of ILSVRC's size that one thread decodes, crops and colours", rate, "a second")
