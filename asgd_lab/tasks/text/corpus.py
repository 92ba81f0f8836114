"""The text task's data: bytes or a tokenizer's ids of files or a corpus, or files of ids; a tenth is held out."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.task_keys.text import BySource, TextKeys
from asgd_lab.tasks.array_files import numbers, tensor
from asgd_lab.tasks.base import Data, check_free_memory
from asgd_lab.tasks.places import folders, walked
from asgd_lab.tasks.text import shakespeare, tokens
from asgd_lab.tasks.text.stories import text

BYTES = 256  # the vocabulary of texts without a tokenizer
_STORIES_BYTES = 6_000_000
_TEST_SHARE = 10  # the last tenth is held out
Parts = Sequence[tuple[str, Tensor]]
"""The names of texts, and their tokens (N,)."""


def read(config: TextKeys) -> Data:
    """Tokens `train_text` and `test_text`, (N,) whole numbers, and `vocabulary` (), the number of known ones.

    Bytes have no entry `vocabulary`: all 256 are known. With data: by_key, `train_spans` (S, 3) has the beginning and
    the end of each file in `train_text`, and the number of the worker's file or folder that it belongs to; `test_spans`
    (S, 2) has those in `test_text`.
    """
    if config.tokens is not None:
        return _files_of_ids(config, config.tokens)
    if config.tokenizer is None:
        return _parted(config, _bytes(config))
    parts, known = tokens.encoded(Path(config.tokenizer).expanduser(), _texts(config))
    if config.vocabulary is not None and config.vocabulary < known:
        message = f"{config.vocabulary} is less than the {known} tokens of {config.tokenizer}"
        raise ScenarioError.at("task.vocabulary", message)
    return _parted(config, parts) | {"vocabulary": torch.tensor(config.vocabulary or known)}


def vocabulary(data: Data) -> int:
    """The number of known tokens."""
    return int(data["vocabulary"]) if "vocabulary" in data else BYTES


def _parted(config: TextKeys, parts: Parts) -> Data:
    """The last tenth apart: of the whole text, or of each file where workers own files."""
    if not isinstance(config.data, BySource):
        whole = _joined([each for _, each in parts])
        train, held_out = _split(whole)
        found = {"train_text": train, "test_text": held_out}
    else:
        splits = [_split(each) for _, each in parts]
        sources = [_source(config, config.data, name) for name, _ in parts]
        numbered = {source: number for number, source in enumerate(dict.fromkeys(sources))}
        numbers = torch.tensor([numbered[each] for each in sources], dtype=torch.int64)
        found = {
            "train_text": _joined([train for train, _ in splits]),
            "test_text": _joined([held_out for _, held_out in splits]),
            "train_spans": torch.cat([_spans([train for train, _ in splits]), numbers.unsqueeze(1)], 1),
            "test_spans": _spans([held_out for _, held_out in splits]),
        }
    if len(found["test_text"]) <= config.context:
        key = "task.corpus_bytes" if config.data_folder is None or config.corpus is not None else "task.data_folder"
        what = "bytes" if config.tokenizer is None and config.tokens is None else "tokens"
        message = f"{sum(len(each) for _, each in parts):,} {what} are too few: the last tenth must be longer than"
        raise ScenarioError.at(key, f"{message} the context, {config.context}")
    if "test_spans" in found:
        longest = int(found["test_spans"].diff(dim=1).max())
        if longest <= config.context:
            what = f"the last tenth of the longest file, {longest}, must be longer than the context, {config.context}"
            raise ScenarioError.at("task.data", f"{what}: no sequence spans two files")
    return found


def _spans(parts: Sequence[Tensor]) -> Tensor:
    """(S, 2) the beginning and the end of each part where they are joined."""
    lengths = torch.tensor([len(each) for each in parts], dtype=torch.int64)
    ends = lengths.cumsum(0)
    return torch.stack([ends - lengths, ends], 1)


def _split(whole: Tensor) -> tuple[Tensor, Tensor]:
    train = len(whole) - len(whole) // _TEST_SHARE
    return whole[:train], whole[train:]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """One tensor; a single part stays where it is, in its file."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat(list(parts)) if parts else torch.empty(0, dtype=torch.uint8)


def _source(config: TextKeys, division: BySource, name: str) -> str:
    """The owned unit that a file belongs to: the file itself, or its folder right below data_folder."""
    if division.key == "file" or config.data_folder is None:
        return name
    folder = Path(config.data_folder).expanduser()
    below = Path(name).relative_to(folder).parts
    if len(below) < 2:
        message = f"cannot deal whole folders: {name} lies in no folder below {folder}; use key: file, or move it"
        raise ScenarioError.at("task.data.key", message)
    return below[0]


def _bytes(config: TextKeys) -> Parts:
    """The bytes of the texts; those of one file stay there."""
    place = None if config.data_folder is None else Path(config.data_folder).expanduser()
    if place is not None and place.is_file() and config.corpus is None:
        found = tensor("task.data_folder", str(place), numbers("task.data_folder", place, "uint8"))
        return [(str(place), found[: config.corpus_bytes])]
    return [(name, torch.frombuffer(bytearray(content), dtype=torch.uint8)) for name, content in _texts(config)]


def _texts(config: TextKeys) -> Iterator[tuple[str, bytes]]:
    """The texts by name, none of them empty; all or the first bytes; a line's end stands between two files."""
    if config.corpus != "shakespeare" and config.data_folder is None:
        size_bytes = config.corpus_bytes or _STORIES_BYTES
        check_free_memory("task.corpus_bytes", "is too large: its stories take, three times,", 3 * size_bytes)
        yield "the stories", text(size_bytes, seed=0)
        return
    left = config.corpus_bytes
    found: Iterable[tuple[str, bytes]]
    if config.corpus == "shakespeare":
        found = shakespeare.works(folders(config.data_folder))
    else:
        assert config.data_folder is not None
        found = _files(Path(config.data_folder).expanduser(), left)
    for name, content in found:
        if left is not None:
            content = _first(content, left, whole_characters=config.tokenizer is not None)
            left -= len(content)
        if content:
            yield name, content


def _first(content: bytes, most: int, *, whole_characters: bool) -> bytes:
    """The first bytes, at most `most`; if stated, without the part of a last UTF-8 character that they would cut."""
    cut = most
    while whole_characters and cut < len(content) and cut > max(0, most - 3) and content[cut] & 0xC0 == 0x80:
        cut -= 1
    return content[:cut]


def _files(place: Path, most: int | None) -> Iterator[tuple[str, bytes]]:
    """The contents of files by name, read one after another, up to one byte more than the first `most`."""
    try:
        files = _listed(place)
        if not files:
            raise ScenarioError.at("task.data_folder", f"{place} has no file *.txt")
        size_bytes = sum(os.path.getsize(file) for file in files)
        size_bytes = size_bytes if most is None else min(most, size_bytes)
        check_free_memory("task.data_folder", "is too large: its text takes, twice,", 2 * size_bytes)
        taken = 0
        for number, file in enumerate(files):
            with open(file, "rb") as opened:
                content = b"\n" * bool(number) + opened.read(-1 if most is None else most - taken + 1)
            yield str(file), content
            taken += len(content)
            if most is not None and taken > most:
                return
    except OSError as error:
        raise ScenarioError.at("task.data_folder", f"{error.filename or place}: {error.strerror}") from error


def _listed(place: Path) -> list[Path]:
    """The file, or the files *.txt in the folder and below; an OSError if one cannot be looked at."""
    if not stat.S_ISDIR(os.stat(place).st_mode):
        return [place]
    named = (Path(folder, name) for folder, names in walked(place) for name in names if name.endswith(".txt"))
    return sorted(each for each in named if stat.S_ISREG(os.stat(each).st_mode))


def _files_of_ids(config: TextKeys, name: str) -> Data:
    """Ids that stay in their files."""
    assert config.data_folder is not None
    folder, kind = Path(config.data_folder).expanduser(), config.token_type or "uint16"
    named = {"tokens": name} | ({} if config.test_tokens is None else {"test_tokens": config.test_tokens})
    found = {key: tokens.ids(f"task.{key}", folder / file, kind) for key, file in named.items()}
    most = max(
        tokens.largest(f"task.{key}", folder / named[key], values, config.vocabulary) for key, values in found.items()
    )
    if "test_tokens" in found:
        data = {"train_text": found["tokens"], "test_text": found["test_tokens"]}
        for key, values in found.items():
            if len(values) <= config.context:
                message = f"{folder / named[key]} has {len(values):,} tokens; it must have more than context, "
                raise ScenarioError.at(f"task.{key}", f"{message}{config.context}")
    else:
        data = _parted(config, [(name, found["tokens"])])
    return data | {"vocabulary": torch.tensor(config.vocabulary or most + 1)}
