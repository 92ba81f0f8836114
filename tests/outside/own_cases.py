"""What researchers bring, case by case: how many lines it takes, and what works. The table is in own_cases.md.

`python -m tests.outside.own_cases` tries every case and writes the table; tests/tasks/test_own_cases.py tries some of
them and compares. Each case is one worker against a plain loop, two real workers whose run is repeated, a real run that
is interrupted and resumed, and replicas batched by the simulator.
"""

from __future__ import annotations

import inspect
import io
import sys
import tempfile
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
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
from tests.tasks import own_classes, own_real_classes, own_runs
from tests.tasks.against_plain_pytorch import largest
from tests.tasks.own_runs import ASGD, SEED, STEPS

TABLE = Path(__file__).with_suffix(".md")
SGD = {"name": "SGD", "lr": 0.05, "momentum": 0.9}
Task = dict[str, Any]


class Case(NamedTuple):
    """A name, what was seen before the task own existed, and a class, or a task section over a folder of data."""

    name: str
    before: str
    brought: str | Callable[[Path], Task]


class Found(NamedTuple):
    """One row of the table, in words."""

    lines: int
    difference: str  # of a parameter from the plain loop, the larger of inline and sim; or the refusal
    replays: str
    resumes: str
    batched: str


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


HERE, REAL, FACE = own_classes.__name__, own_real_classes.__name__, "tests.outside.hugging_face"
NO_LOOP = "no loss over a model and a minibatch of one's own"
CASES = [
    Case("dict of tensors, dropout, metrics", NO_LOOP, f"{HERE}:Plain"),
    Case("GPT on bytes (task text)", "valid, then a traceback in the run", text),
    Case("GPT-2 of Hugging Face, tiny", "valid, then a traceback in the run", f"{FACE}:Gpt2"),
    Case("Llama of Hugging Face, tiny", "valid, then a traceback in the run", f"{FACE}:Llama"),
    Case("tokens, perplexity and token accuracy", "an error of 27.04, a share; ids became float32", f"{HERE}:Tokens"),
    Case("memory-mapped tokens", "ids became float32, and a copy of the file", f"{REAL}:Mapped"),
    Case("LoRA on a frozen body, its BatchNorm in eval", "evaluated wrongly, and all of it was sent", f"{REAL}:Lora"),
    Case("packed LSTM", "refused", f"{HERE}:Packed"),
    Case("segmentation, intersection over union", "an error over pixels that was none", f"{REAL}:Segmentation"),
    Case("contrastive (InfoNCE)", "1.474 was told for a loss of 0.220", f"{HERE}:Contrastive"),
    Case("GAN, two optimizers", NO_LOOP, f"{HERE}:Gan"),
    Case("CSV", "by a function of one's own", table),
    Case("two towers, area under the curve", "no second input", f"{REAL}:Ranked"),
    Case("arrays in a dataclass", "no second input", f"{HERE}:Arrays"),
    Case("stream with state", "no streams", f"{HERE}:Streamed"),
    Case("stream that fills one buffer", "no streams", f"{REAL}:OneBuffer"),
    Case("bf16 autocast", NO_LOOP, f"{HERE}:Cast"),
    Case("weight_norm and BatchNorm", "worked", f"{HERE}:Normed"),
    Case("EMA, accumulation of two minibatches", NO_LOOP, f"{HERE}:Averaged"),
    Case("AdamW and SGD by name, own schedule", "one optimizer for all", f"{HERE}:TwoOptimizers"),
    Case("torch.compile, eager", "not tried", f"{HERE}:Compiled"),
    Case("torch.compile, aot_eager", "not tried", f"{REAL}:CompiledAhead"),
    Case("torch.compile, inductor", "not tried", f"{REAL}:CompiledWhole"),
    Case("LBFGS", "refused", f"{HERE}:Lbfgs"),
    Case("LazyModule", "refused", f"{HERE}:Lazy"),
]


def tried(case: Case, folder: Path) -> Found:
    """Run the case in all its ways, below an empty folder."""
    if isinstance(case.brought, str):
        module, _, name = case.brought.partition(":")
        kind: type[Any] = getattr(__import__(module, fromlist=[name]), name)
        count = lines_of(kind)

        def stated(backend: Any, **parts: Any) -> Scenario:
            return own_runs.stated(kind, backend, **parts)

        def loop() -> tuple[list[Tensor], nn.Module]:
            return own_runs.plain(kind)
    else:
        (data := folder / "data").mkdir()
        task = case.brought(data)
        count = len(task)

        def stated(backend: Any, **parts: Any) -> Scenario:
            return own_runs.scenario_of(task, backend, **parts)

        def loop() -> tuple[list[Tensor], nn.Module]:
            return plain(stated("inline"))

    try:
        off = _differences(stated, loop, folder)
    except ScenarioError as error:
        return Found(count, f"refused: {str(error).partition(': ')[2] or error}", "", "", "")
    said = "0" if off == 0.0 else f"{off:.1e}"
    return Found(count, said, *_real(stated, folder), _batched(stated))


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


def _differences(
    stated: Callable[..., Scenario], loop: Callable[[], tuple[list[Tensor], nn.Module]], folder: Path
) -> float:
    build_task(stated("inline"))  # refused before the loop
    before, model = loop()
    after = [each.detach() for each in model.parameters() if each.requires_grad]
    found = []
    for backend in ("inline", "sim"):
        execute(stated(backend), folder / backend)
        found.append(largest(before, after, final_params(folder / backend)))
    return max(found)


def _real(stated: Callable[..., Scenario], folder: Path) -> tuple[str, str]:
    """Whether a real run that was interrupted and resumed repeats, and whether it has the bits of one at a stretch."""
    checkpoints = {"name": "process", "checkpoint": {"every_updates": 5}}
    real = stated(checkpoints, algorithm=ASGD, budget={"minibatches": 90})

    def until_a_checkpoint(progress: Any) -> None:
        if progress.version >= 7:
            raise KeyboardInterrupt

    execute(real, folder / "real", until_a_checkpoint)
    if read_summary(folder / "real")["status"] == "interrupted":
        execute(real, folder / "real", resume=True)
    replays = repeat(real, folder / "real").difference is None
    execute(stated("inline", algorithm=ASGD, budget={"minibatches": 90}), folder / "at-once")
    same = bool((final_params(folder / "real") == final_params(folder / "at-once")).all())
    return "yes" if replays else "no", "same bits" if same else "other bits"


def _batched(stated: Callable[..., Scenario]) -> str:
    try:
        build_task(stated("sim")).batch()
    except ScenarioError:
        return "one by one"
    return "yes"


PARTS: dict[type[Any], tuple[type[Any], ...]] = {  # classes that a class uses
    own_classes.Streamed: (own_classes.Plain, own_classes.Counter),
    own_real_classes.OneBuffer: (own_classes.Plain,),
    own_real_classes.Lora: (own_real_classes.Adapted,),
    own_classes.Arrays: (own_classes.Pair,),
}


def lines_of(kind: type[Any]) -> int:
    """Lines of code of a class, its bases and its parts, without docstrings, comments and blank lines."""
    needed = [*kind.__mro__[:-1], *PARTS.get(kind, ())]
    return sum(_lines(inspect.getsource(each)) for each in needed if each.__module__ != "torch.nn.modules.module")


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


def row(case: Case, found: Found) -> str:
    """The case as a line of the table."""
    return f"| {' | '.join(map(str, (case.name, case.before, *found)))} |"


HEAD = """\
What researchers bring, before and now. `python -m tests.outside.own_cases` writes this table, and
tests/tasks/test_own_cases.py holds it to what the cases show.

Before: what 48 real cases showed when there was no task `own`. Lines: of code of the class, or keys of the task.
Difference: the largest of a parameter from a plain PyTorch loop after 9 minibatches, on `inline` and `sim`. Replay: a
real run, interrupted and resumed, is repeated to the bit. Resume: its parameters are those of a run at a stretch.
Batched: whether the simulator can compute replicas together.

| case | before | lines | difference | replay | resume | batched |
| --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> None:
    """Try all cases, and write the table."""
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row(case, tried(case, Path(folder))))
        print(rows[-1], file=sys.stderr, flush=True)
    TABLE.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
