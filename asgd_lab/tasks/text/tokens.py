"""Tokens from elsewhere: files of ids, which stay in their files, and texts through a tokenizer of Hugging Face.

Ids are checked before a run: one beyond the vocabulary is told with its file and position.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks.array_files import array, tensor
from asgd_lab.tasks.base import check_free_memory, one_line
from asgd_lab.tasks.samples import chunks

_ENCODING_BYTES = 100  # of the tokenizer's memory for each byte of the text
_HINT = "pip install tokenizers"


def ids(key: str, path: Path, token_type: str) -> Tensor:
    """The ids (N,) in a file; whole numbers of any type."""
    found = array(key, path, raw=token_type)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ScenarioError.at(key, f"{path} holds {found.dtype} of {found.shape}; it must hold whole numbers of (N,)")
    if found.dtype == np.uint64:
        raise ScenarioError.at(key, f"{path} holds uint64; save the ids in a smaller type, such as uint32")
    return tensor(key, str(path), found)


def largest(key: str, path: Path, found: Tensor, vocabulary: int | None) -> int:
    """The largest id of a file; a `ScenarioError` for the first one that is negative or beyond the vocabulary."""
    most, begins = -1, 0
    for part in chunks(found):
        most = max(most, int(part.max()))
        wrong = (part < 0) if vocabulary is None else (part < 0) | (part >= vocabulary)
        if bool(wrong.any()):
            place = int(wrong.nonzero()[0])
            allowed = "ids are 0 or more" if vocabulary is None else f"the vocabulary has 0 to {vocabulary - 1}"
            message = f"{path}: token {begins + place:,} (from 0) is {int(part[place])}; {allowed}"
            raise ScenarioError.at(key, message)
        begins += len(part)
    return most


def encoded(path: Path, texts: Iterable[tuple[str, bytes]]) -> tuple[list[tuple[str, Tensor]], int]:
    """The texts' names and ids (N,), and the size of the tokenizer's vocabulary."""
    tokenizer = _tokenizer(path)
    known, parts = int(tokenizer.get_vocab_size(with_added_tokens=True)), list[tuple[str, Tensor]]()
    for name, content in texts:
        check_free_memory("task.tokenizer", f"cannot encode {name} at once: it takes", _ENCODING_BYTES * len(content))
        try:
            found = tokenizer.encode(content.decode("utf-8"), add_special_tokens=False).ids
        except UnicodeDecodeError as error:
            message = f"{name} is not UTF-8 text at byte {error.start:,}, which a tokenizer needs"
            raise ScenarioError.at("task.tokenizer", message) from error
        except Exception as error:
            raise ScenarioError.at("task.tokenizer", f"{path} cannot encode {name}: {one_line(error)}") from error
        parts.append((name, torch.from_numpy(np.array(found, np.int32))))
        largest("task.tokenizer", Path(name), parts[-1][1], known)
    return parts, known


def _tokenizer(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer  # imported here: few runs need it, and it is an extra
    except ImportError as error:
        message = f"needs the package tokenizers, which cannot be imported ({one_line(error)}); {_HINT}"
        raise ScenarioError.at("task.tokenizer", message) from error
    try:
        found = Tokenizer.from_buffer(path.read_bytes())
        found.no_truncation()
        found.no_padding()
        return found
    except OSError as error:
        raise ScenarioError.at("task.tokenizer", f"{path}: {error.strerror}") from error
    except Exception as error:  # the library raises bare exceptions
        message = f"{path} is no tokenizer of Hugging Face, a file tokenizer.json: {one_line(error)}"
        raise ScenarioError.at("task.tokenizer", message) from error
