"""Bad data of each kind that a task reads: what lies in the folder, the task's keys, and the words of the one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CSV = "name: classification, batch_size: 2, dataset: csv, dataset_options: {file: t.csv}"
NUMPY = "name: classification, batch_size: 2, dataset: numpy"
IMAGES = "name: classification, batch_size: 2, dataset: image-folder, model: lenet, dataset_options: OPTIONS"
SMALL = "{resize: 32, crop: 32, ten_crops: false, statistics_samples: 4}"
TEXT = "name: text, context: 8, width: 8, layers: 1, heads: 2, batch_size: 2"
IDS = f"{TEXT}, tokens: t.bin"


@dataclass(frozen=True)
class Bad:
    """`task` are its keys beside data_folder, `make` writes the files, `words` are a part of the message at `key`."""

    id: str
    task: str
    make: Callable[[Path], object]
    key: str
    words: str


def text(name: str, content: str | bytes) -> Callable[[Path], object]:
    """A file of that content."""
    whole = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(whole)


def arrays(**changed: Any) -> Callable[[Path], object]:
    """Four arrays of 12 samples and 2 classes in files .npy, some changed; None leaves one out."""

    def make(folder: Path) -> None:
        found: dict[str, Any] = {
            f"{split}_{part}": values
            for split in ("train", "test")
            for part, values in (("images", np.ones((12, 3), np.float32)), ("labels", np.arange(12) % 2))
        }
        for part, values in (found | changed).items():
            if values is not None:
                np.save(folder / f"{part}.npy", values)

    return make


def tree(*, classes: int = 2, broken: bool = False, empty: bool = False, sizes: bool = False) -> Callable[[Path], None]:
    """Images in train/ and val/."""

    def make(folder: Path) -> None:
        for split in ("train", "val"):
            for kind in range(classes):
                place = folder / split / f"c{kind}"
                place.mkdir(parents=True)
                for number in range(0 if empty else 3):
                    side = (32 + 9 * number, 40 - 3 * number) if sizes else (32, 32)
                    Image.new("RGB", side, (40 * kind, 20 * number, 9)).save(place / f"{number}.png")
        if broken:
            (folder / "train" / "c0" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")

    return make


def nothing(folder: Path) -> None:
    """No file at all."""


def folder_named(name: str) -> Callable[[Path], object]:
    """A directory where a file should be."""
    return lambda folder: (folder / name).mkdir()


def loop_named(name: str) -> Callable[[Path], object]:
    """A link to itself."""
    return lambda folder: (folder / name).symlink_to(folder / name)


def endless(folder: Path) -> None:
    """A link to the folder in which it lies."""
    (folder / "again").symlink_to(folder)


def pipe_named(name: str) -> Callable[[Path], object]:
    """A pipe that nobody writes to: opening it would wait for ever."""
    return lambda folder: os.mkfifo(folder / name)


def texts(**contents: bytes | str) -> Callable[[Path], object]:
    """Files NAME.txt; `__` in a name stands for a folder."""

    def make(folder: Path) -> None:
        for name, content in contents.items():
            path = folder / f"{name.replace('__', '/')}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


ROWS = "".join(f"{number / 7},{number % 2}\n" for number in range(20))
LONG = "to be or not to be " * 30
KEYED = f"{TEXT}, data: by_key"
OPTIONS, FOLDER, SET = "task.dataset_options", "task.data_folder", "task.dataset"
NAN = np.ones((12, 3), np.float32)
NAN[:, 1] = np.nan
ZEROS = np.zeros(12, np.int64)

BAD = [
    # CSV
    Bad("csv empty", CSV, text("t.csv", ""), OPTIONS, "is empty"),
    Bad("csv blank lines", CSV, text("t.csv", "\n\n\n"), OPTIONS, "is empty"),
    Bad("csv header only", CSV, text("t.csv", "x,y\n"), OPTIONS, "is empty: it has no line of numbers"),
    Bad("csv one line", CSV, text("t.csv", "x,y\n1,0\n"), f"{OPTIONS}.test_share", "leaves nothing to train on"),
    Bad("csv other delimiter", CSV, text("t.csv", ("x,y\n" + ROWS).replace(",", ";")), OPTIONS, "delimiter is ','"),
    Bad("csv tabs", CSV, text("t.csv", ("x,y\n" + ROWS).replace(",", "\t")), OPTIONS, "first line is 'x\\ty'"),
    Bad("csv mixed types", CSV, text("t.csv", "x,y\n1,0\nred,1\n"), OPTIONS, "t.csv:3: column 1 (x): 'red' is no"),
    Bad("csv all nan", CSV, text("t.csv", "x,y\nnan,0\nnan,1\n"), OPTIONS, "t.csv:2: column 1 (x): 'nan' is no"),
    Bad("csv infinity", CSV, text("t.csv", "x,y\n1e999,0\n"), OPTIONS, "is no finite number"),
    Bad("csv missing", CSV, text("t.csv", "x,y\n,0\n"), OPTIONS, "a value is missing"),
    Bad("csv ragged", CSV, text("t.csv", "x,y\n1,0\n1,0,3\n"), OPTIONS, "t.csv:3: has 3 cells; the first line has 2"),
    Bad("csv open quote", CSV, text("t.csv", 'x,y\n"1,0\n'), OPTIONS, "cannot be read"),
    Bad("csv not utf-8", CSV, text("t.csv", b"x,y\n\xff\xfe,1\n"), OPTIONS, "cannot be read: UnicodeDecodeError"),
    Bad("csv utf-16", CSV, text("t.csv", ("x,y\n" + ROWS).encode("utf-16")), OPTIONS, "cannot be read"),
    Bad("csv zero bytes", CSV, text("t.csv", b"x,y\n1\0,1\n"), OPTIONS, "t.csv"),
    Bad("csv one class", CSV, text("t.csv", "x,y\n" + "1.5,0\n" * 20), SET, "have one class only, 0"),
    Bad("csv negative label", CSV, text("t.csv", "x,y\n1,-3\n" + ROWS * 2), SET, "has -3; classes are 0 or more"),
    Bad("csv huge label", CSV, text("t.csv", "x,y\n" + ROWS + "1,999999999\n"), SET, "has 999,999,999 in sample"),
    Bad("csv huge value", CSV, text("t.csv", "x,y\n" + ROWS + "1e300,1\n"), SET, "beyond what float32 holds"),
    Bad("csv whole number", CSV, text("t.csv", f"x,y\n{2**53 + 1},1\n" + ROWS), OPTIONS, "t.csv:2: column 1 (x):"),
    Bad("csv labels of fractions", CSV, text("t.csv", "y,x\n" + "0,1.5\n" * 20), "task.loss", "is missing: labels"),
    Bad("csv missing file", CSV, nothing, OPTIONS, "t.csv cannot be read: FileNotFoundError"),
    Bad("csv folder", CSV, folder_named("t.csv"), OPTIONS, "t.csv cannot be read: it is no regular file"),
    Bad("csv loop", CSV, loop_named("t.csv"), OPTIONS, "t.csv cannot be read: OSError"),
    Bad("csv pipe", CSV, pipe_named("t.csv"), OPTIONS, "t.csv cannot be read: it is no regular file"),
    # arrays
    Bad("numpy missing", NUMPY, arrays(test_labels=None), FOLDER, "test_labels.npy cannot be read: No such file"),
    Bad("numpy no test", NUMPY, arrays(test_images=np.ones((0, 3)), test_labels=np.ones(0, int)), SET, "for labels of"),
    Bad("numpy no train", NUMPY, arrays(train_images=np.ones((0, 3)), train_labels=np.ones(0, int)), SET, "labels of"),
    Bad("numpy other length", NUMPY, arrays(train_labels=np.ones(11, int)), SET, "for labels of (11,)"),
    Bad("numpy nan column", NUMPY, arrays(train_images=NAN), SET, "has nan or an infinity in sample 0"),
    Bad("numpy negative label", NUMPY, arrays(train_labels=np.arange(12) - 1), SET, "has -1; classes are 0 or more"),
    Bad("numpy huge label", NUMPY, arrays(test_labels=np.arange(12) + 10**12), SET, "has 1,000,000,000,"),
    Bad("numpy one class", NUMPY, arrays(train_labels=ZEROS, test_labels=ZEROS), SET, "have one class only, 0"),
    Bad("numpy texts", NUMPY, arrays(train_images=np.array([["a"]] * 12)), FOLDER, "which torch has no type for"),
    Bad("numpy objects", NUMPY, arrays(train_images=np.array([{}] * 12)), FOLDER, "which are not unpickled"),
    Bad("numpy odd bytes", NUMPY, text("train_images.npy", b"\x93NUMPY\x01\0\xff\xff"), FOLDER, "cannot be read"),
    Bad("numpy empty file", NUMPY, text("train_images.npy", b""), FOLDER, "cannot be read"),
    Bad("numpy scalar", NUMPY, arrays(train_images=np.float32(1)), SET, "train_images of ()"),
    Bad("numpy folder", NUMPY, folder_named("train_images.npy"), FOLDER, "cannot be read: "),
    Bad("numpy loop", NUMPY, loop_named("train_images.npy"), FOLDER, "cannot be read: Too many levels of symbolic"),
    Bad("numpy pipe", NUMPY, pipe_named("train_images.npy"), FOLDER, "it is no regular file"),
    # images
    Bad("images none", IMAGES, nothing, FOLDER, "cannot be read: FileNotFoundError"),
    Bad("images no classes", IMAGES, lambda folder: [(folder / each).mkdir() for each in ("train", "val")], FOLDER,
        "cannot be read: FileNotFoundError"),
    Bad("images empty classes", IMAGES, tree(empty=True), FOLDER, "cannot be read: FileNotFoundError"),
    Bad("images one class", IMAGES, tree(classes=1), SET, "have one class only, 0"),
    Bad("images corrupt", IMAGES, tree(broken=True), FOLDER, "0.png cannot be read: "),
    Bad("images loop", IMAGES, loop_named("train"), FOLDER, "cannot be read: "),
    Bad("images file", IMAGES, text("train", "no folder"), FOLDER, "cannot be read: NotADirectoryError"),
    Bad("images end nowhere", IMAGES, lambda folder: [tree()(folder), endless(folder / "train" / "c0")], FOLDER,
        "c0/again is a link to a folder that it lies in"),
    # text
    Bad("text no files", TEXT, nothing, FOLDER, "has no file *.txt"),
    Bad("text empty", TEXT, texts(a=""), FOLDER, "0 bytes are too few"),
    Bad("text short", TEXT, texts(a="to be or not to be"), FOLDER, "18 bytes are too few: the last tenth must be"),
    Bad("text loop", TEXT, loop_named("a.txt"), FOLDER, "a.txt: Too many levels of symbolic links"),
    Bad("text ends nowhere", TEXT, endless, FOLDER, "again is a link to a folder that it lies in"),
    Bad("text broken link", TEXT, lambda folder: (folder / "a.txt").symlink_to(folder / "b"), FOLDER, "a.txt: No such"),
    Bad("text folder named so", TEXT, folder_named("a.txt"), FOLDER, "has no file *.txt"),
    Bad("text pipe", TEXT, pipe_named("a.txt"), FOLDER, "has no file *.txt"),
    Bad("text dirichlet", f"{TEXT}, data: {{name: dirichlet, alpha: 1.0}}", texts(a=LONG), "task.data.name",
        "must be 'by_key', 'sharded' or 'shared'; got 'dirichlet'"),
    Bad("text one file", KEYED, texts(a=LONG), "workers", "2 is more than the 1 files of task.data"),
    Bad("text short file", KEYED, texts(a=LONG, b="short"), "task.data", "worker 1 gets 6 tokens, no piece"),
    Bad("text folders", f"{TEXT}, data: {{name: by_key, key: folder}}", texts(a=LONG, b__c=LONG), "task.data.key",
        "a.txt lies in no folder below"),
    Bad("text too wide", TEXT.replace("width: 8", "width: 1000000"), texts(a=LONG), "task.width",
        "makes the transformer too large: its parameters take"),
    # ids
    Bad("ids missing", IDS, nothing, "task.tokens", "t.bin cannot be read: No such file or directory"),
    Bad("ids empty", IDS, text("t.bin", b""), "task.tokens", "its 0 bytes are no whole number of uint16, at least one"),
    Bad("ids odd bytes", IDS, text("t.bin", b"\1\0\2"), "task.tokens", "its 3 bytes are no whole number of uint16"),
    Bad("ids short", IDS, text("t.bin", b"\1\0" * 30), FOLDER, "30 tokens are too few"),
    Bad("ids beyond", f"{IDS}, vocabulary: 9", text("t.bin", b"\1\0" * 500 + b"\x09\0"), "task.tokens",
        "token 500 (from 0) is 9; the vocabulary has 0 to 8"),
    Bad("ids huge", IDS.replace("t.bin", "t.npy"), lambda folder: np.save(folder / "t.npy", np.arange(400) * 10**12),
        "task.vocabulary", "makes the transformer too large: its parameters take"),
    Bad("ids folder", IDS, folder_named("t.bin"), "task.tokens", "t.bin cannot be read: "),
    Bad("ids loop", IDS, loop_named("t.bin"), "task.tokens", "cannot be read: Too many levels of symbolic links"),
    Bad("ids pipe", IDS, pipe_named("t.bin"), "task.tokens", "t.bin cannot be read: "),
    Bad("ids by key", f"{IDS}, data: by_key", text("t.bin", b"\1\0" * 900), "task.data", "are one file; use sharded"),
    Bad("stories by key", f"{KEYED}, data_folder: null", nothing, "task.data", "without files; give data_folder"),
    Bad("tokenizer missing", f"{TEXT}, tokenizer: FOLDER/t.json", texts(a=LONG), "task.tokenizer", "t.json: No such"),
    Bad("tokenizer folder", f"{TEXT}, tokenizer: FOLDER/t.json", folder_named("t.json"), "task.tokenizer",
        "t.json: Is a directory"),
    Bad("tokenizer odd", f"{TEXT}, tokenizer: FOLDER/t.json", text("t.json", b"\xff{"), "task.tokenizer",
        "is no tokenizer of Hugging Face"),
    Bad("idx odd", "name: classification, dataset: mnist", lambda folder: [
        (folder / f"{split}-{kind}-ubyte").write_bytes(b"\1\2\3")
        for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    ], SET, "train-images-idx3-ubyte cannot be read"),
]  # fmt: skip
