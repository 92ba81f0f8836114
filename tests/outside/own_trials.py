"""A trial of what a researcher brings: against a plain loop, by real processes, replayed, resumed and batched.

Everything that a trial says is computed here, in these runs; nothing is looked up.
"""

from __future__ import annotations

import inspect
import io
import tokenize
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from asgd_lab.backends.build import build_task
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record.run import read_summary
from asgd_lab.record.saved_model import final_params
from asgd_lab.scenario import Scenario
from asgd_lab.streams import key
from asgd_lab.tasks.global_generators import preserving_generators, seed_all
from asgd_lab.tasks.torchvision_import import torchvision
from tests.tasks import own_classes, own_odd_classes, own_real_classes, own_runs
from tests.tasks.against_plain_pytorch import largest
from tests.tasks.keepers import CountInGroup
from tests.tasks.own_runs import ASGD, SEED, STEPS

EMULATED = {"name": "process", "device": "emulated"}  # minibatches of 20 ms, so that there is time to interrupt
TIMES = {"compute": {"step_s": 0.02}}
MINIBATCHES = 60
NEAR = 1e-5  # of a parameter, between replicas batched and one by one
Task = dict[str, Any]
Stated = Callable[..., Scenario]
Loop = Callable[[], tuple[list[Tensor], nn.Module]]


class Found(NamedTuple):
    """What a trial shows, in words."""

    lines: int
    sim: str  # the largest difference of a parameter from the plain loop, on inline and sim; or the refusal
    process: str  # the same of one real worker
    replayed: str  # a run of two real workers that was interrupted and resumed
    resumed: str  # a run of one, compared with one at a stretch
    batched: str


def tried(brought: str | Callable[[Path], Task], parts: Mapping[str, Any], folder: Path) -> Found:
    """Run a class, or a task section that a function makes, in all its ways, below an empty folder."""
    count = lines_of_case(brought, folder)
    if isinstance(brought, str):
        kind = _named(brought)

        def stated(backend: Any, **more: Any) -> Scenario:
            return own_runs.stated(kind, backend, **{**parts, **more})

        def loop() -> tuple[list[Tensor], nn.Module]:
            return own_runs.plain(kind)
    else:
        task = brought(folder / "data")

        def stated(backend: Any, **more: Any) -> Scenario:
            return own_runs.scenario_of(task, backend, **{**parts, **more})

        def loop() -> tuple[list[Tensor], nn.Module]:
            return plain(stated("inline"))

    try:
        build_task(stated("inline"))
    except (ScenarioError, ValidationError) as error:
        return Found(count, f"refused: {_said(error)}", "", "", "", "")
    before, model = loop()
    after = [each.detach() for each in model.parameters() if each.requires_grad]

    def difference(backend: str) -> float:
        execute(stated(backend), folder / backend)
        return largest(before, after, final_params(folder / backend))

    simulated = _shown(max(difference("inline"), difference("sim")))
    return Found(
        count, simulated, _shown(difference("process")), _replayed(stated, folder), _resumed(stated, folder),
        _batched(stated, folder),
    )  # fmt: skip


def lines_of_case(brought: str | Callable[[Path], Task], folder: Path) -> int:
    """Lines of the class; or keys of the section, which is made in folder/data, and lines of what it names."""
    if isinstance(brought, str):
        return lines_of(_named(brought))
    (data := folder / "data").mkdir()
    task = brought(data)
    named = [each for each in (task.get("model"), task.get("loss")) if each is not None and ":" in each]
    return len(task) + sum(lines_of(_named(each)) for each in named)


def _named(name: str) -> Any:
    torchvision()  # transformers imports it, and without its operators it needs help
    module, _, attribute = name.partition(":")
    return getattr(__import__(module, fromlist=[attribute]), attribute)


def _said(error: ScenarioError | ValidationError) -> str:
    lines = str(error).splitlines()  # pydantic's first line counts errors
    line = lines[0] if isinstance(error, ScenarioError) else lines[1].partition(" [type=")[0].strip()
    return line.replace("|", "\\|")


def _shown(difference: float) -> str:
    return "0" if difference == 0.0 else f"{difference:.1e}"


def plain(scenario: Scenario) -> tuple[list[Tensor], nn.Module]:
    """A plain loop over the minibatches, the model and the loss of one of the project's own tasks."""
    task: Any = build_task(scenario)
    recipe, batches = task.network.recipe, task.batches(0, torch.device("cpu"))
    with preserving_generators():
        seed_all(key(SEED, "initial"))
        model: nn.Module = recipe.factory()
        before = [each.detach().clone() for each in model.parameters() if each.requires_grad]
        (optimizer,) = recipe.make(model)
        for step in range(STEPS):
            batch = batches(step)
            seed_all(key(SEED, "model", 0, step))
            optimizer.zero_grad()
            recipe.objective(model, batch)[0].backward()
            optimizer.step()
    return before, model


def _interrupted_and_resumed(scenario: Scenario, folder: Path) -> None:
    """A run that is interrupted after a checkpoint and resumed from it."""

    def until_a_checkpoint(progress: Any) -> None:
        if progress.version >= 7:
            raise KeyboardInterrupt

    execute(scenario, folder, until_a_checkpoint)
    if read_summary(folder)["status"] != "interrupted":
        raise RuntimeError(f"{folder} ended before it could be interrupted, so that nothing was resumed")
    execute(scenario, folder, resume=True)


def _real(stated: Stated, workers: int) -> Scenario:
    backend = {**EMULATED, "checkpoint": {"every_updates": 5}}
    budget = {"minibatches": MINIBATCHES}
    return stated(backend, algorithm=ASGD, budget=budget, workers=workers, hardware=TIMES)


def _replayed(stated: Stated, folder: Path) -> str:
    scenario = _real(stated, 2)
    try:
        _interrupted_and_resumed(scenario, folder / "replayed")
    except ScenarioError:  # its resume is refused, and told by `_resumed`
        scenario = stated(EMULATED, algorithm=ASGD, budget={"minibatches": 30}, workers=2, hardware=TIMES)
        execute(scenario, folder := folder / "at-once")
    else:
        folder = folder / "replayed"
    verdict = repeat(scenario, folder)
    return "same bits" if verdict.difference is None and verdict.final else "other bits"


def _resumed(stated: Stated, folder: Path) -> str:
    try:
        _interrupted_and_resumed(_real(stated, 1), folder / "resumed")
    except ScenarioError as error:
        return f"refused: {_said(error)}"
    execute(stated("inline", algorithm=ASGD, budget={"minibatches": MINIBATCHES}), folder / "at-a-stretch")
    same = bool((final_params(folder / "resumed") == final_params(folder / "at-a-stretch")).all())
    return "same bits" if same else "other bits"


def _batched(stated: Stated, folder: Path) -> str:
    """Whether the simulator computes two replicas together, and comes near those that it computes one by one."""
    parts: dict[str, Any] = {"algorithm": ASGD, "budget": {"minibatches": 24}, "workers": 2}
    try:
        execute(stated({"name": "sim", "numerics": "batched"}, **parts), folder / "batched")
    except ScenarioError:
        return "one by one"
    execute(stated("sim", **parts), folder / "sequential")
    off = abs(final_params(folder / "batched") - final_params(folder / "sequential")).max()
    return "yes" if off < NEAR else f"other numbers: {off:.1e}"


PARTS: dict[Any, tuple[Any, ...]] = {  # classes that a class uses
    own_classes.Streamed: (own_classes.Plain, own_classes.Counter),
    own_classes.Arrays: (own_classes.Pair,),
    own_real_classes.OneBuffer: (own_classes.Plain,),
    own_real_classes.Lora: (own_real_classes.Adapted,),
    own_odd_classes.CountsSteps: (CountInGroup,),
}


def lines_of(brought: Any) -> int:
    """Lines of code of a function, or of a class, its bases and its parts, without docstrings, comments and blank
    lines.
    """
    whole = [brought, *PARTS.get(brought, ())]
    needed = dict.fromkeys(base for each in whole for base in getattr(each, "__mro__", [each]))
    return sum(_lines(inspect.getsource(each)) for each in needed if each.__module__.startswith("tests."))


def _lines(source: str) -> int:
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    found: set[int] = set()
    first = True  # a string that begins a line is a docstring
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.STRING and first:
            continue
        if token.type in skipped:
            first = first or token.type in (tokenize.NEWLINE, tokenize.NL)
            continue
        first = False
        found.update(range(token.start[0], token.end[0] + 1))
    return len(found)
