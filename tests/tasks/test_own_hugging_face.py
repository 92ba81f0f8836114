"""Causal models of Hugging Face as tasks of one's own: trained, repeated, resumed and taken home as in a plain loop."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.model_export import export
from asgd_lab.record.saved_model import final_params
from asgd_lab.tasks.torchvision_import import torchvision

from .against_plain_pytorch import largest
from .own_runs import ASGD, plain, stated

pytestmark = pytest.mark.skipif(find_spec("transformers") is None, reason="it is not installed")


def named(name: str) -> type[Any]:
    """A class of the example; imported here, since it takes seconds that every process of the tests would collect."""
    torchvision()  # transformers imports it, and without its operators it needs help
    found: type[Any] = getattr(importlib.import_module("tests.outside.hugging_face"), name)
    return found


LOAD = """
import sys, torch
sys.modules["torchvision"] = None  # not needed, and without its operators it cannot be imported
import transformers
from tests.outside.hugging_face import GPT2
model = transformers.GPT2LMHeadModel(GPT2)
model.load_state_dict(torch.load(sys.argv[1], weights_only=True))
assert not any(name.startswith("asgd_lab") for name in sys.modules)
print(sum(each.double().sum() for each in model.state_dict().values()).item())
"""


@pytest.mark.parametrize("name", ["Gpt2", "Llama"])
@pytest.mark.parametrize("backend", ["inline", "sim"])
def test_a_causal_model_trains_as_in_a_plain_loop_to_the_bit(tmp_path: Path, name: str, backend: str) -> None:
    kind = named(name)
    before, model = plain(kind)
    summary = execute(stated(kind, backend), tmp_path / "run")
    after = [each.detach() for each in model.parameters() if each.requires_grad]
    assert largest(before, after, final_params(tmp_path / "run")) == 0.0
    assert summary["final"]["test_loss"] < 3.5


def test_real_workers_of_gpt2_repeat_resume_and_export_a_model_that_transformers_loads(tmp_path: Path) -> None:
    gpt2 = named("Gpt2")
    backend = {"name": "process", "checkpoint": {"every_updates": 5}}
    whole = stated(gpt2, backend, algorithm=ASGD, budget={"minibatches": 90})

    def until_a_checkpoint(progress: Any) -> None:
        if progress.version >= 12:
            raise KeyboardInterrupt

    assert execute(whole, tmp_path / "run", until_a_checkpoint)["status"] == "interrupted"
    assert execute(whole, tmp_path / "run", resume=True)["status"] == "done"
    assert repeat(whole, tmp_path / "run").difference is None
    execute(stated(gpt2, "inline", algorithm=ASGD, budget={"minibatches": 90}), tmp_path / "inline")
    assert (final_params(tmp_path / "run") == final_params(tmp_path / "inline")).all()
    export(tmp_path / "run", tmp_path / "model.pt")
    told = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "model.pt")], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert float(told.stdout) == sum(each.double().sum() for each in saved.values()).item()
