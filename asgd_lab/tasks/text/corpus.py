"""The text task's data: bytes or a tokenizer's ids of files or a corpus, or files of ids; the end of it is held out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks.array_files import numbers, tensor
from asgd_lab.tasks.base import Data
from asgd_lab.tasks.free_memory import check_free_memory
from asgd_lab.tasks.mnist_files import folders
from asgd_lab.tasks.text import shakespeare, tokens
from asgd_lab.tasks.text.stories import text

BYTES = 256  # the vocabulary of texts without a tokenizer
_STORIES_BYTES = 6_000_000
_TEST_SHARE = 10  # the last tenth is held out


class CorpusConfig(Protocol):
    """The part of a scenario that names the text."""

    @property
    def data_folder(self) -> str | None:
        """A text file, or a folder of them or of token files, or of a corpus; None: a corpus in its own place."""
        ...

    @property
    def corpus(self) -> str | None:
        """`stories` or `shakespeare`; None: the files in data_folder, or the stories."""
        ...

    @property
    def corpus_bytes(self) -> int | None:
        """The bytes of text to use, the first ones; None: all."""
        ...

    @property
    def tokenizer(self) -> str | None:
        """The path of a tokenizer.json; None: every byte is a token."""
        ...

    @property
    def tokens(self) -> str | None:
        """A file of ids in data_folder; None: text is read."""
        ...

    @property
    def test_tokens(self) -> str | None:
        """A file of held-out ids; None: the last tenth of `tokens`."""
        ...

    @property
    def token_type(self) -> str | None:
        """The type of the ids in a file `.bin`; None: uint16."""
        ...

    @property
    def vocabulary(self) -> int | None:
        """The number of known tokens; None: the tokenizer's, or the largest id and 1."""
        ...

    @property
    def context(self) -> int:
        """The length of a sequence."""
        ...


def read(config: CorpusConfig) -> Data:
    """Tokens `train_text` and `test_text`, (N,) whole numbers, and `vocabulary` (), the number of known ones.

    Bytes have no entry `vocabulary`: all 256 are known.
    """
    if config.tokens is not None:
        return _files_of_ids(config, config.tokens)
    if config.tokenizer is None:
        return _parted(config, _bytes(config))
    found_ids, known = tokens.encoded(Path(config.tokenizer).expanduser(), _texts(config))
    if config.vocabulary is not None and config.vocabulary < known:
        message = f"{config.vocabulary} is less than the {known} tokens of {config.tokenizer}"
        raise ScenarioError.at("task.vocabulary", message)
    return _parted(config, found_ids) | {"vocabulary": torch.tensor(config.vocabulary or known)}


def vocabulary(data: Data) -> int:
    """The number of known tokens."""
    return int(data["vocabulary"]) if "vocabulary" in data else BYTES


def _parted(config: CorpusConfig, whole: Tensor) -> Data:
    """The last tenth apart."""
    held_out = len(whole) // _TEST_SHARE
    if held_out <= config.context:
        key = "task.corpus_bytes" if config.data_folder is None or config.corpus is not None else "task.data_folder"
        what = "bytes" if config.tokenizer is None and config.tokens is None else "tokens"
        message = f"{len(whole):,} {what} are too few: the last tenth must be longer than the context, {config.context}"
        raise ScenarioError.at(key, message)
    return {"train_text": whole[:-held_out], "test_text": whole[-held_out:]}


def _bytes(config: CorpusConfig) -> Tensor:
    """The bytes of the text; those of one file stay there."""
    place = None if config.data_folder is None else Path(config.data_folder).expanduser()
    if place is not None and place.is_file() and config.corpus is None:
        found = tensor("task.data_folder", str(place), numbers("task.data_folder", place, "uint8"))
        return found[: config.corpus_bytes]
    whole = bytearray().join(content for _, content in _texts(config))
    return torch.frombuffer(whole, dtype=torch.uint8) if whole else torch.empty(0, dtype=torch.uint8)


def _texts(config: CorpusConfig) -> Iterator[tuple[str, bytes]]:
    """The texts by name, whole or the first bytes of all; a line's end stands between files."""
    if config.corpus == "shakespeare":
        yield "shakespeare", shakespeare.text(folders(config.data_folder))[: config.corpus_bytes]
        return
    if config.data_folder is None:
        yield "the stories", text(config.corpus_bytes or _STORIES_BYTES, seed=0)
        return
    left = config.corpus_bytes
    for number, (name, content) in enumerate(_files(Path(config.data_folder).expanduser())):
        content = b"\n" + content if number else content
        if left is not None:
            content = content[:left]
            left -= len(content)
        if content:
            yield name, content


def _files(place: Path) -> Iterator[tuple[str, bytes]]:
    try:
        files = sorted(place.rglob("*.txt")) if place.is_dir() else [place]
        size_bytes = sum(os.path.getsize(file) for file in files)
        check_free_memory("task.data_folder", "is too large: its text takes, twice,", 2 * size_bytes)
        if not files:
            raise ScenarioError.at("task.data_folder", f"{place} has no file *.txt")
        for file in files:
            yield str(file), file.read_bytes()
    except OSError as error:
        raise ScenarioError.at("task.data_folder", f"{error.filename or place}: {error.strerror}") from error


def _files_of_ids(config: CorpusConfig, name: str) -> Data:
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
        data = _parted(config, found["tokens"])
    return data | {"vocabulary": torch.tensor(config.vocabulary or most + 1)}
