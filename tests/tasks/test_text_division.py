"""Whose text is whose: shared, a span for each worker, or whole files and folders."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record import tables
from asgd_lab.streams import generator
from asgd_lab.tasks.text.next_tokens import NextTokens
from asgd_lab.tasks.text.windows import consecutive, divided
from tests.backends.scenarios import scenario
from tests.tasks.test_text import TINY

FILES = {"a/one": 3000, "a/two": 2000, "b/three": 4000, "c/four": 1500, "c/five": 900}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files each of whose bytes is its own: 65 and on, in the order of their names."""
    for number, name in enumerate(sorted(FILES)):
        path = tmp_path / "texts" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([65 + number]) * FILES[name])
    return tmp_path / "texts"


def stated(folder: Path, data: Any, workers: int = 2, **parts: Any) -> Any:
    task = {**TINY, "data_folder": str(folder), "corpus_bytes": None, "data": data}
    return scenario(**{"task": task, "workers": workers, "backend": "inline", "seed": 5, **parts})


def batches(folder: Path, data: Any, workers: int, given: int | None = None, steps: int = 40) -> list[torch.Tensor]:
    """Each worker's ids and next ids (N, T + 1)."""
    config = stated(folder, data, workers).task
    own, count = NextTokens(config, config.load(), 5, workers), workers if given is None else given
    found = [[own.batch(worker, count, 5, step) for step in range(steps)] for worker in range(count)]
    return [torch.cat([torch.cat([ids, after[:, -1:]], 1) for ids, after in each]) for each in found]


def seen(each: torch.Tensor) -> set[str]:
    return set(map(chr, each.unique().tolist())) - {"\n"}


def test_a_shared_text_is_drawn_from_as_a_plain_loop_would(folder: Path) -> None:
    config = stated(folder, "shared").task
    data = config.load()
    own = NextTokens(config, data, 5, 2)
    for worker in range(2):
        starts = generator(5, "windows", worker, 3).integers(0, len(data["train_text"]) - 16, 4)
        expected = [data["train_text"][start : start + 16].tolist() for start in starts]
        assert own.batch(worker, 2, 5, 3)[0].tolist() == expected


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_every_worker_has_a_span_of_its_own_and_together_they_are_the_text(folder: Path, workers: int) -> None:
    config = stated(folder, "sharded", workers).task
    data = config.load()
    length = len(data["train_text"])
    data["train_text"] = torch.arange(length)  # a token is its place
    own = NextTokens(config, data, 5, workers)
    for worker in range(workers):
        found = torch.cat([own.batch(worker, workers, 5, step)[0] for step in range(200)])
        first, last = length * worker // workers, length * (worker + 1) // workers
        assert (first <= found.min(), found.max() < last) == (True, True)
        assert found.max() - found.min() > 0.8 * (last - first)


@pytest.mark.parametrize(("key", "workers"), [("file", 2), ("file", 5), ("folder", 2), ("folder", 3)])
def test_every_worker_owns_whole_files_or_folders_and_no_sequence_spans_two(
    folder: Path, key: str, workers: int
) -> None:
    found = batches(folder, {"name": "by_key", "key": key}, workers)
    assert all(len(seen(row)) == 1 for each in found for row in each)
    owned = [seen(each) for each in found]
    assert sorted(each for every in owned for each in every) == list("ABCDE")  # each file is one worker's
    if key == "folder":
        homes = {chr(65 + number): name.split("/")[0] for number, name in enumerate(sorted(FILES))}
        whose = [{homes[each] for each in every} for every in owned]
        assert sum(map(len, whose)) == 3
    elif workers == 2:  # the longest first, each to the worker with the least: 4000 + 1500 against 3000 + 2000 + 900
        assert sorted(map(sorted, owned)) == [["A", "B", "C"], ["D", "E"]] or {"C", "E"} in owned or {"C", "D"} in owned


def test_the_last_tenth_of_each_owned_file_is_held_out_and_all_files_are_evaluated(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = stated(folder, "by_key").task
    data = config.load()
    counts = {chr(each): int((data["test_text"] == each).sum()) for each in range(65, 70)}
    assert [counts[each] for each in "ABCDE"] == [FILES[name] // 10 for name in sorted(FILES)]
    monkeypatch.setattr("asgd_lab.tasks.text.next_tokens._EVALUATED_TOKENS", 400)
    for split, sequences in NextTokens(config, data, 5, 2).evaluations():
        ids = torch.cat([ids for ids, _ in sequences])
        assert seen(ids) == set("ABCDE"), split
        assert all(len(seen(row)) == 1 for row in ids)
        assert ids.numel() <= 400 + 2 * 16


@given(st.lists(st.integers(0, 60), min_size=1, max_size=8), st.integers(1, 20))
def test_evaluated_sequences_stand_one_behind_another_in_each_file(lengths: list[int], context: int) -> None:
    ends = np.cumsum(lengths)
    spans = np.stack([ends - lengths, ends], 1)
    expected = [start for begin, end in spans.tolist() for start in range(begin, end - context, context)]
    assert consecutive(spans, context).tolist() == expected


@pytest.mark.parametrize("key", ["file", "folder"])
def test_no_evaluated_sequence_spans_two_files_and_short_pieces_are_left_out(tmp_path: Path, key: str) -> None:
    sizes = [3000, 150, 170, 2000, 159, 400]  # of the last tenths, 15 to 17 may hold a sequence of 16 and the next one
    for number, size in enumerate(sizes):
        path = tmp_path / "texts" / str(number) / "all.txt"
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes([65 + number]) * size)
    config = stated(tmp_path / "texts", {"name": "by_key", "key": key}).task
    splits = dict(NextTokens(config, config.load(), 5, 2).evaluations())
    for split, sequences in splits.items():
        rows = torch.cat([torch.cat([ids, after[:, -1:]], 1) for ids, after in sequences])
        assert all(len(seen(row)) == 1 for row in rows), split
        assert seen(rows) == set("ACDF" if split == "test" else "ABCDEF")


def test_files_whose_last_tenths_have_no_whole_sequence_are_refused(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.txt").write_bytes(b"a" * 100)
    config = stated(tmp_path, "by_key").task
    with pytest.raises(ScenarioError, match="the last tenth of the longest file, 10, must be longer than") as caught:
        config.load()
    assert caught.value.key == "task.data"


def test_the_text_of_many_files_is_divided_in_one_pass() -> None:
    """A pass over all files for each file would take minutes."""
    files, workers = 30_000, 3
    lengths = torch.tensor([20 + number % 7 for number in range(files)])
    ends = lengths.cumsum(0)
    sources = torch.arange(files) // 2  # folders of two files
    data = {"train_text": torch.empty(int(ends[-1]), dtype=torch.uint8),
            "train_spans": torch.stack([ends - lengths, ends, sources], 1)}  # fmt: skip
    config: Any = scenario(task={**TINY, "data_folder": ".", "corpus_bytes": None, "data": {
        "name": "by_key", "key": "folder"}}, workers=workers, backend="inline").task  # fmt: skip
    began = time.process_time()
    parts = divided(config, data, workers, 5)
    assert time.process_time() - began < 5
    places = [part.drawn(np.random.default_rng(0), 2000) for part in parts]
    owned = [set((torch.searchsorted(ends, place, right=True) // 2).tolist()) for place in places]
    assert not any(one & other for one, other in itertools.combinations(owned, 2))
    assert sum(part.count for part in parts) == int((lengths - config.context).clamp(min=0).sum())


def test_a_part_without_a_whole_sequence_is_told(folder: Path) -> None:
    config = stated(folder, "sharded", 900).task
    with pytest.raises(ScenarioError, match="worker 0 gets 11 tokens, no piece of which is longer") as caught:
        NextTokens(config, config.load(), 5, 900)
    assert caught.value.key == "task.data"


def test_a_warm_start_has_all_of_the_text(folder: Path) -> None:
    for data in ("sharded", "by_key"):
        (found,) = batches(folder, data, 2, given=1, steps=200)
        assert seen(found) == set("ABCDE")


@pytest.mark.parametrize("data", ["sharded", "by_key"])
def test_divided_text_is_learned_from_alike_on_all_backends_and_replays(
    folder: Path, tmp_path: Path, data: str
) -> None:
    budget, hashes = {"minibatches": 12}, {}
    for backend in ("inline", "sim", *(["process"] if data == "by_key" else [])):
        one = stated(folder, data, backend=backend, budget=budget, algorithm={"name": "sync_sgd", "n_sync": 2})
        hashes[backend] = execute(one, tmp_path / backend)["params_sha256"]
    assert len(set(hashes.values())) == 1
    assert backend != "process" or repeat(one, tmp_path / backend).difference is None
    if data == "sharded":
        return
    batched = stated(folder, data, backend={"name": "sim", "numerics": "batched"}, budget=budget)
    execute(batched, tmp_path / "batched")
    losses = tables.read(tmp_path / "batched", "minibatches")["loss"]
    assert len(losses) == 12 and np.isfinite(losses).all()  # noqa: PT018


def test_works_of_a_corpus_are_files(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works = [("one", b"a" * 900), ("two", b"b" * 700)]
    monkeypatch.setattr("asgd_lab.tasks.text.shakespeare.works", lambda folders: works)
    task = {**TINY, "corpus": "shakespeare", "corpus_bytes": None, "data": "by_key"}
    config = scenario(task=task, workers=2, backend="inline").task
    data: Any = config.load()  # type: ignore[union-attr]
    own = NextTokens(config, data, 0, 2)  # type: ignore[arg-type]
    assert {chr(int(own.batch(worker, 2, 0, 0)[0][0, 0])) for worker in range(2)} == {"a", "b"}


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[Path]:
    """A text, and behind it a file of a terabyte that takes no room on the disk."""
    place = tmp_path / "large"
    place.mkdir()
    (place / "a.txt").write_text("to be or not to be, that is the question. " * 30)
    with open(place / "b.txt", "wb") as opened:
        os.truncate(opened.fileno(), 2**40)
    yield place
    (place / "b.txt").unlink()


@pytest.mark.parametrize("size_bytes", [900, 1260, 5000])
def test_only_the_first_bytes_of_large_files_are_read_and_counted(endless: Path, size_bytes: int) -> None:
    task = {**TINY, "data_folder": str(endless), "corpus_bytes": size_bytes}
    data: Any = scenario(task=task, workers=2, backend="inline").task.load()  # type: ignore[union-attr]
    assert len(data["train_text"]) + len(data["test_text"]) == size_bytes
    with pytest.raises(ScenarioError, match=r"is too large: its text takes, twice, 2,199\.0 GB") as caught:
        scenario(task={**task, "corpus_bytes": None}, workers=2, backend="inline").task.load()  # type: ignore[union-attr]
    assert caught.value.key == "task.data_folder"


def test_stories_that_do_not_fit_into_memory_are_refused() -> None:
    with pytest.raises(ScenarioError, match=r"its stories take, three times, 3,000,000\.0 GB") as caught:
        scenario(task={**TINY, "corpus_bytes": 10**15}, backend="inline").task.load()  # type: ignore[union-attr]
    assert caught.value.key == "task.corpus_bytes"


@pytest.mark.parametrize("size_bytes", range(400, 404))
def test_a_tokenizers_text_is_not_cut_inside_of_a_character(tmp_path: Path, size_bytes: int) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"€": 0, "x": 1}, unk_token="x")).save(str(tmp_path / "t.json"))
    (tmp_path / "a.txt").write_text("€" * 300, encoding="utf-8")  # three bytes each
    task = {**TINY, "data_folder": str(tmp_path / "a.txt"), "tokenizer": str(tmp_path / "t.json"), "context": 1}
    with pytest.raises(ScenarioError, match="tokens are too few"):
        scenario(task={**task, "corpus_bytes": size_bytes}, backend="inline").task.load()  # type: ignore[union-attr]
    (tmp_path / "a.txt").write_bytes("€".encode() * 300 + b"\xe2\x82")
    with pytest.raises(ScenarioError, match="is not UTF-8 text at byte 900"):
        scenario(task={**task, "corpus_bytes": None}, backend="inline").task.load()  # type: ignore[union-attr]
