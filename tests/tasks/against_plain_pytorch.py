"""One worker of the lab against a plain PyTorch loop: the largest difference of a parameter, model by model.

`python -m tests.tasks.against_plain_pytorch` prints the table.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from asgd_lab.backends.run import execute
from asgd_lab.record.saved_model import final_params
from asgd_lab.scenario import Scenario
from asgd_lab.streams import key
from asgd_lab.tasks.feeds import walk
from tests.tasks import real_models

STEPS, BATCH, SEED = 12, 8, 3
SGD = {"name": "SGD", "lr": 0.05, "momentum": 0.9}
ADAM = {"name": "AdamW", "lr": 0.003, "weight_decay": 0.1}


class Case(NamedTuple):
    """A model of `real_models`, its data, its loss (None: cross-entropy), its optimizer, and the precision."""

    model: str
    data: str
    loss: str | None
    optimizer: dict[str, Any]
    precision: str = "float32"


CASES = [
    Case("ByteTransformer", "bytes", "next_token", ADAM),
    Case("Standardised", "vectors", None, SGD),
    Case("PackedLstm", "words", None, ADAM),
    Case("FrozenBackbone", "images", None, SGD),
    Case("TwoHeads", "vectors", "two_heads", SGD),
    Case("resnet18", "images", None, SGD),
    Case("ConvNext", "images", None, ADAM),
    Case("UNet", "pixels", "by_pixel", ADAM),
    Case("Vae", "vectors", "elbo", ADAM),
    Case("GruBag", "words", None, SGD),
    Case("batch_norm_mlp", "vectors", None, SGD),
    Case("weight_normed", "vectors", None, SGD),
    Case("Lora", "vectors", None, ADAM),
    Case("Experts", "vectors", None, SGD),
]


def plain(case: Case) -> tuple[list[Tensor], list[Tensor]]:
    """The trained parameters before and after a loop that knows of the lab only its order of samples and its seeds."""
    data = real_models.data(case.data)
    torch.manual_seed(key(SEED, "initial"))
    model: nn.Module = getattr(real_models, case.model)(num_classes=4)
    model.train()
    before = [parameter.detach().clone() for parameter in model.parameters() if parameter.requires_grad]
    loss_of: Any = nn.functional.cross_entropy if case.loss is None else getattr(real_models, case.loss)
    options = {name: value for name, value in case.optimizer.items() if name != "name"}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = getattr(torch.optim, case.optimizer["name"])(trained, **options)
    order = walk(SEED, 0, real_models.SAMPLES, BATCH, torch.device("cpu"), None)
    for step in range(STEPS):
        chosen = order(step)
        torch.manual_seed(key(SEED, "model", 0, step))
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bfloat16"):
            loss = loss_of(model(data["train_images"][chosen]), data["train_labels"][chosen])
        loss.backward()
        optimizer.step()
    return before, [parameter.detach() for parameter in trained]


def lab(case: Case, backend: str, out: Path) -> np.ndarray[Any, Any]:
    """The final parameters of one worker, who pushes once, at the end."""
    module = real_models.__name__
    task = {
        "name": "classification", "dataset": f"{module}:data", "dataset_options": {"kind": case.data},
        "model": f"{module}:{case.model}", "batch_size": BATCH, "optimizer": case.optimizer,
        "loss": None if case.loss is None else f"{module}:{case.loss}", "precision": case.precision,
    }  # fmt: skip
    stated = Scenario.model_validate({
        "name": case.model, "seed": SEED, "task": task, "algorithm": {"name": "sgd", "n_sync": STEPS},
        "budget": {"minibatches": STEPS}, "backend": backend, "hardware": {"compute": {"step_s": 0.001}},
    })  # fmt: skip
    execute(stated, out)
    return final_params(out)


def difference(case: Case, backend: str) -> float:
    """The largest of a parameter. The server adds what the worker changed: that rounding is done here too."""
    before, after = plain(case)
    with tempfile.TemporaryDirectory() as folder:
        vector = lab(case, backend, Path(folder) / "run")
    return largest(before, after, vector)


def largest(before: list[Tensor], after: list[Tensor], vector: np.ndarray[Any, Any]) -> float:
    """Between the vector's parameters, each at its place, and start + (end - start) of the plain loop."""
    from asgd_lab.tasks.flat import Layout

    views = Layout.of(each.shape for each in before).views(torch.from_numpy(vector).clone())
    pairs = zip(before, after, views, strict=False)
    return max(float((start + (end - start) - view).abs().max()) for start, end, view in pairs)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(f"{'model':18} {'parameters':>10} {'moved':>8} {'sim':>9} {'process':>9}")
    for case in CASES:
        before, after = plain(case)
        count = sum(each.numel() for each in before)
        moved = max(float((end - start).abs().max()) for start, end in zip(before, after, strict=True))
        found = [difference(case, backend) for backend in ("sim", "process")]
        print(f"{case.model:18} {count:10,} {moved:8.3f} {found[0]:9.1e} {found[1]:9.1e}", flush=True)


if __name__ == "__main__":
    main()
