"""Tokens from files and from tokenizers: mapped, checked with file and position, and learned from."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from asgd_lab.backends.build import build_task
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record.run import read_manifest
from asgd_lab.tasks.base import Data
from asgd_lab.tasks.text.next_tokens import NextTokens
from tests.backends.scenarios import scenario
from tests.tasks.test_text import TINY

SMALL = {**TINY, "corpus_bytes": None}
IDS = np.arange(2000) * 7 % 300


def stated(folder: Path, **keys: Any) -> Any:
    return scenario(task={**SMALL, "data_folder": str(folder), **keys}, backend="sim", workers=2)


def load(folder: Path, **keys: Any) -> Data:
    found: Data = stated(folder, **keys).task.load()
    return found


def write(path: Path, ids: Any) -> None:
    values = np.asarray(ids)
    if path.suffix == ".bin":
        values.tofile(path)
    elif path.suffix == ".npy":
        np.save(path, values)
    else:
        np.savez(path, ids=values)


@pytest.mark.parametrize("kind", ["uint16", "uint32", "int64", "int32"])
@pytest.mark.parametrize("name", ["t.bin", "t.npy", "t.npz"])
def test_ids_are_read_from_a_file_and_the_last_tenth_is_held_out(tmp_path: Path, name: str, kind: str) -> None:
    if name.endswith(".bin") and kind.startswith("int"):
        return
    write(tmp_path / name, IDS.astype(kind))
    data = load(tmp_path, tokens=name, token_type=kind if name.endswith(".bin") else None)
    assert int(data["vocabulary"]) == 300
    assert [len(data[part]) for part in ("train_text", "test_text")] == [1800, 200]
    own: Any = NextTokens(stated(tmp_path, tokens=name).task, data, 0, 1)
    ids, following = own.batch(0, 1, 0, 5)
    assert (ids.dtype, ids.shape) == (torch.int64, (4, 16))
    assert torch.equal(following, (ids + 7) % 300)


def test_two_files_of_ids_are_training_and_held_out_and_a_run_replays(tmp_path: Path) -> None:
    write(tmp_path / "train.bin", IDS.astype(np.uint16))
    write(tmp_path / "val.bin", IDS[:100].astype(np.uint16))
    keys = {"data_folder": str(tmp_path), "tokens": "train.bin", "test_tokens": "val.bin", "vocabulary": 400}
    real = scenario(task={**SMALL, **keys}, backend="process", workers=2, budget={"minibatches": 12})
    summary = execute(real, tmp_path / "run")
    assert summary["final"]["test_bits_per_token"] > 0
    assert repeat(real, tmp_path / "run").difference is None
    assert build_task(real).size > 400 * 16


def test_a_file_that_changes_is_other_data(tmp_path: Path) -> None:
    from asgd_lab.tasks import facts_of
    from asgd_lab.tasks import load as loaded

    found = []
    for shift in (0, 1):
        write(tmp_path / "t.npy", (IDS + shift) % 300)
        config = stated(tmp_path, tokens="t.npy").task
        loaded(config)
        found.append(facts_of(config))
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("name", "content", "keys", "key", "words"),
    [
        ("t.bin", np.array([1, 2, 70, 3] * 100, np.uint16), {"vocabulary": 70}, "tokens",
         r"t.bin: token 2 \(from 0\) is 70; the vocabulary has 0 to 69"),
        ("t.npy", np.array([*range(1000), -1]), {}, "tokens",
         r"t.npy: token 1,000 \(from 0\) is -1; ids are 0 or more"),
        ("t.npy", np.zeros((3, 4), np.int64), {}, "tokens", r"holds int64 of \(3, 4\); it must hold whole numbers"),
        ("t.npy", np.zeros(400), {}, "tokens", "holds float64"),
        ("t.npy", np.zeros(400, np.uint64), {}, "tokens", "holds uint64; save the ids in a smaller type"),
        ("t.npy", np.zeros(20, np.int64), {}, "data_folder", "20 tokens are too few"),
        ("t.bin", np.zeros(3, np.uint8), {}, "tokens", "its 3 bytes are no whole number of uint16"),
        ("t.bin", np.zeros(0, np.uint8), {}, "tokens", "its 0 bytes are no whole number"),
        ("u.bin", np.zeros(0, np.uint8), {}, "tokens", "t.npy cannot be read: No such file or directory"),
        ("t.txt", np.zeros(9, np.uint8), {"tokens": "t.txt"}, "tokens", "must be a file .npy, .npz or .bin"),
    ],
)  # fmt: skip
def test_a_wrong_file_of_ids_is_told_in_one_line(
    tmp_path: Path, name: str, content: Any, keys: dict[str, Any], key: str, words: str
) -> None:
    write(tmp_path / name, content) if name != "t.txt" else content.tofile(tmp_path / name)
    stated_keys = {"tokens": name if name.startswith("t.") else "t.npy", **keys}
    with pytest.raises(ScenarioError, match=words) as caught:
        load(tmp_path, **stated_keys)
    assert (caught.value.key, "\n" in str(caught.value)) == (f"task.{key}", False)


@pytest.mark.parametrize("name", ["t.npy", "t.npz"])
def test_a_file_that_is_cut_off_or_of_another_format_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, IDS)
    whole = (tmp_path / name).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"hello, world", whole[:20]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ScenarioError, match=f"{name} cannot be read: ") as caught:
            load(tmp_path, tokens=name)
        assert "\n" not in str(caught.value)
    np.save(tmp_path / "t.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ScenarioError, match="holds Python objects, which are not unpickled"):
        load(tmp_path, tokens="t.npy")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"tokens": "t.bin", "data_folder": None}, "data_folder: is missing"),
        ({"tokens": "t.bin", "tokenizer": "t.json"}, "tokenizer: cannot stand beside tokens"),
        ({"tokens": "t.bin", "corpus_bytes": 5}, "corpus_bytes: cannot stand beside tokens"),
        ({"test_tokens": "t.bin"}, "test_tokens: cannot stand without tokens"),
        ({"token_type": "uint16"}, "token_type: is for files .bin"),
        ({"vocabulary": 300}, "vocabulary: is for tokens or a tokenizer; bytes have 256"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        stated(tmp_path, **keys)


TEXT = "the cat sat on the mat and the dog sat on the cat\n" * 80


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator([TEXT], trainer)
    made.enable_truncation(8)  # which a saved tokenizer may have, and a corpus must not
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    return path


def test_a_tokenizers_ids_are_learned_from_and_are_the_whole_text(tmp_path: Path, tokenizer: Path) -> None:
    from tokenizers import Tokenizer

    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text(TEXT)
    (folder / "b.txt").write_text(TEXT)
    keys = {"data_folder": str(folder), "tokenizer": str(tokenizer)}
    data = load(folder, **keys)
    whole = torch.cat([data["train_text"], data["test_text"]]).tolist()
    made = Tokenizer.from_file(str(tokenizer))
    made.no_truncation()
    assert whole == made.encode(TEXT).ids + made.encode("\n" + TEXT).ids
    assert int(data["vocabulary"]) == made.get_vocab_size()
    one = scenario(task={**SMALL, **keys}, backend="sim", workers=2, budget={"minibatches": 8})
    assert execute(one, tmp_path / "run")["final"]["test_bits_per_token"] > 0
    assert read_manifest(tmp_path / "run")["inputs"]["data"]["sha256"]


def test_a_wrong_tokenizer_or_text_is_told_in_one_line(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "a.txt"
    text.write_text(TEXT)
    bad = tmp_path / "bad.json"
    bad.write_text("{}")

    def told(**keys: Any) -> str:
        with pytest.raises(ScenarioError) as caught:
            load(text, **{"tokenizer": str(tokenizer), **keys})
        assert "\n" not in str(caught.value)
        return f"{caught.value.key}: {caught.value}"

    assert "bad.json is no tokenizer of Hugging Face" in told(tokenizer=str(bad))
    assert "none.json: No such file" in told(tokenizer=str(tmp_path / "none.json"))
    assert "task.vocabulary: 10 is less than the" in told(vocabulary=10)
    text.write_bytes(b"abc\xff" * 100)
    assert "a.txt is not UTF-8 text at byte 3" in told()
    plain_import = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "tokenizers":
            raise ImportError("No module named 'tokenizers'")
        return plain_import(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install tokenizers" in told()
