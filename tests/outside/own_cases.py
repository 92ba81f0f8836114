"""What researchers bring, case by case: how many lines it takes, and what works. The table is in own_cases.md.

`python -m tests.outside.own_cases` tries every case and writes the table. Each finished case is kept in
build/own_cases.jsonl until the table is whole, so that an interrupted run continues where it was; a case that another
version of the package has tried is tried again. tests/tasks/test_own_cases.py tries some cases and compares.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

import asgd_lab
from asgd_lab.record.machine import machine, versions
from tests.outside.own_trials import MINIBATCHES, NEAR, STEPS, Found, Task, tried
from tests.tasks import own_classes, own_odd_classes, own_real_classes, real_models

TABLE = Path(__file__).with_suffix(".md")
TRIED = Path(__file__).parents[2] / "build" / "own_cases.jsonl"
SGD = {"name": "SGD", "lr": 0.05, "momentum": 0.9}
ADAM = {"name": "AdamW", "lr": 0.003, "weight_decay": 0.1}

NOT_TOLD = "nothing told"
LATE, TRICKS = "valid, then a traceback in the run", "not, or only by tricks"
TOLD = {
    NOT_TOLD, LATE, TRICKS, "superbly", "refused", "accepted, and without effect", "a traceback in the run",
    "an error of 27.04, which is a share", "an error of 0.49 at a loss of 0.03", "other ids: they became float32",
    "a loss of 0.078 for 0.178", "a loss of 12.98 for 0.033", "a loss of 1.474 for 0.220", "a loss of 4.84 for 0.303",
    "it did not train, and replay said the same bits", "8.7 s for 0.5 s", "other bits after a resume",
    "two runs of one seed differ", "parameters off by 0.036", "60 minibatches, a traceback, nothing kept",
}  # fmt: skip
"""All that users had told of what happened before there was a task `own`: reports, which nothing here measures."""


class Case(NamedTuple):
    """A name, what users told of it before, a class or a task section over a folder of data, and parts of a scenario.

    `listed`: whether the task `own` was built for it by name.
    """

    name: str
    told: str
    brought: str | Callable[[Path], Task]
    listed: bool = False
    parts: Mapping[str, Any] = {}


def text(folder: Path) -> Task:
    """The project's own task of next bytes."""
    sizes = {"corpus_bytes": 20_000, "context": 16, "width": 16, "layers": 2, "heads": 2}
    return {"name": "text", **sizes, "batch_size": 4}


def table(folder: Path) -> Task:
    """A CSV file with a column of labels."""
    rows = [f"{index / 8},{index % 7},{index % 3}" for index in range(60)]
    (folder / "t.csv").write_text("\n".join(["x,z,y", *rows]))
    return {
        "name": "classification", "dataset": "csv", "data_folder": str(folder), "batch_size": 4,
        "dataset_options": {"file": "t.csv", "label": "y"}, "optimizer": SGD,
    }  # fmt: skip


def images(folder: Path) -> Task:
    """ResNet-18 of torchvision (He et al. 2016) on a folder of PNG files, three classes of four images."""
    drawn = np.random.default_rng(0)
    for split, name, number in itertools.product(("train", "val"), "abc", "1234"):
        (folder / split / name).mkdir(parents=True, exist_ok=True)
        pixels = drawn.integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return {
        "name": "classification", "dataset": "image-folder", "data_folder": str(folder), "batch_size": 4,
        "dataset_options": {"resize": 36, "crop": 32, "ten_crops": False}, "model": "resnet18", "optimizer": SGD,
    }  # fmt: skip


def network(model: str, kind: str, optimizer: Task, loss: str | None = None) -> Callable[[Path], Task]:
    """A network of tests/tasks/real_models.py over data from a function."""
    module = real_models.__name__
    task = {
        "name": "classification", "dataset": f"{module}:data", "dataset_options": {"kind": kind}, "batch_size": 8,
        "model": f"{module}:{model}", "optimizer": optimizer, **({"loss": f"{module}:{loss}"} if loss else {}),
    }  # fmt: skip
    return lambda folder: task


HERE, REAL, ODD = own_classes.__name__, own_real_classes.__name__, own_odd_classes.__name__
FACE = "tests.outside.hugging_face"
DECAY = {"task": {"optimizer": {"name": "SGD", "lr": 0.1, "weight_decay": 0.5}}}
GRADIENTS = {"algorithm": {"name": "asgd", "n_sync": 1, "push": "gradient", "rule": [{"name": "sgd", "lr": 0.1}]}}
CASES = [
    Case("GPT on bytes (task text)", LATE, text, True),
    Case("GPT-2 of Hugging Face, tiny", LATE, f"{FACE}:Gpt2", True),
    Case("Llama of Hugging Face, tiny", LATE, f"{FACE}:Llama", True),
    Case("ResNet-18 on a folder of images", "superbly", images, True),
    Case("LoRA on a frozen body", TRICKS, f"{REAL}:Lora", True),
    Case("packed LSTM", "refused", f"{HERE}:Packed", True),
    Case("segmentation, intersection over union", TRICKS, f"{REAL}:Segmentation", True),
    Case("contrastive (InfoNCE)", "a loss of 1.474 for 0.220", f"{HERE}:Contrastive", True),
    Case("GAN, two optimizers", NOT_TOLD, f"{HERE}:Gan", True),
    Case("CSV", NOT_TOLD, table, True),
    Case("memory-mapped tokens", "other ids: they became float32", f"{REAL}:Mapped", True),
    Case("stream with state", TRICKS, f"{HERE}:Streamed", True),
    Case("bf16 autocast", NOT_TOLD, f"{HERE}:Cast", True),
    Case("weight_norm and BatchNorm", NOT_TOLD, f"{HERE}:Normed", True),
    Case("EMA, accumulation of two minibatches", NOT_TOLD, f"{HERE}:Averaged", True),
    Case("LBFGS", NOT_TOLD, f"{HERE}:Lbfgs", True),
    Case("LazyModule", NOT_TOLD, f"{HERE}:Lazy", True),
    Case("dict of tensors, dropout, metrics", TRICKS, f"{HERE}:Plain"),
    Case("tokens, perplexity and token accuracy", "an error of 27.04, which is a share", f"{HERE}:Tokens"),
    Case("two towers, area under the curve", TRICKS, f"{REAL}:Ranked"),
    Case("arrays in a dataclass", NOT_TOLD, f"{HERE}:Arrays"),
    Case("stream that fills one buffer", TRICKS, f"{REAL}:OneBuffer"),
    Case("AdamW and SGD by name, own schedule", NOT_TOLD, f"{HERE}:TwoOptimizers"),
    Case("torch.compile, eager", NOT_TOLD, f"{HERE}:Compiled"),
    Case("torch.compile, aot_eager", NOT_TOLD, f"{REAL}:CompiledAhead"),
    Case("torch.compile, inductor", NOT_TOLD, f"{REAL}:CompiledWhole"),
    Case("inputs less a running mean", "a loss of 12.98 for 0.033", network("Standardised", "vectors", SGD)),
    Case("frozen body, BatchNorm in eval", "a loss of 0.078 for 0.178", network("FrozenBackbone", "images", SGD)),
    Case("transformer with tied embedding", LATE, network("ByteTransformer", "bytes", ADAM, "next_token")),
    Case("a tuple of two heads", LATE, network("TwoHeads", "vectors", SGD, "two_heads")),
    Case("U-Net, classes of pixels", TRICKS, network("UNet", "pixels", ADAM, "by_pixel")),
    Case("ConvNeXt", "superbly", network("ConvNext", "images", ADAM)),
    Case("variational autoencoder", NOT_TOLD, network("Vae", "vectors", ADAM, "elbo")),
    Case("GRU and bag of words", NOT_TOLD, network("GruBag", "words", SGD)),
    Case("BatchNorm and dropout", "superbly", network("batch_norm_mlp", "vectors", SGD)),
    Case("mixture of experts, one unused", NOT_TOLD, network("Experts", "vectors", SGD)),
    Case("a dict of outputs, more than labels", LATE, f"{ODD}:DictOfOutputs"),
    Case("one logit, binary cross-entropy", "an error of 0.49 at a loss of 0.03", f"{ODD}:OneLogit"),
    Case("ids beyond 2**24", "other ids: they became float32", f"{ODD}:LargeIds"),
    Case("forward closes over the module", "it did not train, and replay said the same bits", f"{ODD}:ClosesOver"),
    Case("torch.jit.script", "refused", f"{ODD}:Scripted"),
    Case("300 layers", "8.7 s for 0.5 s", f"{ODD}:Deep"),
    Case("an optimizer that counts in param_groups", "other bits after a resume", f"{ODD}:CountsSteps"),
    Case("class weights, ignored labels", "a loss of 4.84 for 0.303", f"{ODD}:Weighted"),
    Case("a buffer of the minibatch's size", "refused", f"{ODD}:OfItsSize"),
    Case("draws from numpy", "two runs of one seed differ", f"{ODD}:DrawsFromNumpy"),
    Case("a count in a Python attribute", "parameters off by 0.036", f"{ODD}:CountsInPython"),
    Case("raises in evaluation mode", "60 minibatches, a traceback, nothing kept", f"{ODD}:OnlyTrains"),
    Case("labels of -1", "a traceback in the run", f"{ODD}:NegativeLabel"),
    Case("sparse gradients with weight decay", "a traceback in the run", f"{ODD}:SparseDecay"),
    Case("weight decay of pushed gradients", "accepted, and without effect", f"{HERE}:Plain", False, DECAY | GRADIENTS),
]

ABOUT = f"""
What researchers bring, before and now. `python -m tests.outside.own_cases` tries every case and writes this table, and
tests/tasks/test_own_cases.py compares it with what the cases show.

Before: what users told of it before there was a task `own`. It is told, and not measured here; all other columns are
measured. Lines: of code of the class, or keys of the task and lines of its model and its loss. Sim, process: the
largest difference of a parameter from a plain PyTorch loop after {STEPS} minibatches of one worker, on `inline` and
`sim`, and of a worker in a process of its own; or why the case is refused. Replayed: a run of two real workers over
{MINIBATCHES} minibatches, interrupted and resumed, and repeated from its log. Resumed: such a run of one worker,
compared with one at a stretch. Batched: whether the simulator computes two replicas together, with parameters within
{NEAR:g} of those that it computes one by one.
"""
COLUMNS = ("case", "before, as told", "lines", "sim", "process", "replayed", "resumed", "batched")
WITHOUT = """
Without a row: users told of 48 cases. Those that they named have rows, but for data that change between a run and its
resume, which are no case of a class. The names of the others were not kept.
"""


def filled(text: str) -> str:
    """Paragraphs of at most 120 letters a line."""
    return "\n\n".join(textwrap.fill(" ".join(each.split()), 120) for each in text.strip().split("\n\n")) + "\n"


def source() -> str:
    """A digest of the package's modules: two tables of one digest are of one package."""
    digest, root = hashlib.sha256(), Path(asgd_lab.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def version() -> str:
    """The package and the packages that computed the table, and the processor."""
    found = versions()
    told = {"asgd_lab": f"{found['asgd_lab']} (source {source()[:12]})"}
    told |= {name: str(found[name]) for name in ("python", "torch", "torchvision", "numpy")}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        told["transformers"] = importlib.metadata.version("transformers")
    return f"Tried with {', '.join(f'{name} {each}' for name, each in told.items())}; {machine()['cpu']}."


def row(case: Case, found: Found) -> str:
    """The case as a line of the table."""
    return f"| {' | '.join((case.name, case.told, *map(str, found)))} |"


def rows_of(text: str) -> dict[str, list[str]]:
    """The cells of each line of a table, by the names of their cases."""
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0]: [each.strip() for each in cells] for cells in lines[2:]}


def counted(rows: Iterable[list[str]]) -> str:
    """The sums below the table."""
    every = [dict(zip(COLUMNS, cells, strict=True)) for cells in rows]
    ran = [each for each in every if each["process"]]
    lines = sorted(int(each["lines"]) for each in ran)
    worst = max((each[column] for each in ran for column in ("sim", "process")), key=float)
    replayed, resumed = (sum(each[column] == "same bits" for each in ran) for column in ("replayed", "resumed"))
    return filled(
        f"{len(every)} cases: {len(ran)} are trained on sim and by real workers, {len(every) - len(ran)} are refused "
        f"in a line. Of those that are trained: {lines[0]} to {lines[-1]} lines, median {lines[len(lines) // 2]}; "
        f"largest difference from a plain loop {worst}; {replayed} replays and {resumed} resumed runs have the same "
        f"bits; {sum(each['batched'] == 'yes' for each in ran)} are batched."
    )


def main() -> None:
    """Try all cases that this version has not tried yet, and write the table."""
    torch.set_num_threads(1)
    TRIED.parent.mkdir(exist_ok=True)
    by, kept = version(), TRIED.read_text(encoding="utf-8").splitlines() if TRIED.exists() else []
    done = {each["case"]: each["row"] for each in map(json.loads, kept) if each["version"] == by}
    for case in CASES:
        if case.name not in done:
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                done[case.name] = row(case, tried(case.brought, case.parts, Path(folder)))
            with TRIED.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"version": by, "case": case.name, "row": done[case.name]}) + "\n")
            print(f"{time.monotonic() - began:.1f} s  {done[case.name]}", file=sys.stderr, flush=True)
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}", *(done[case.name] for case in CASES)]
    whole = "\n".join(lines) + "\n"
    found = counted(rows_of(whole).values())
    TABLE.write_text(f"{filled(ABOUT)}\n{by}\n\n{whole}\n{found}\n{filled(WITHOUT)}", encoding="utf-8")
    TRIED.unlink()


if __name__ == "__main__":
    main()
