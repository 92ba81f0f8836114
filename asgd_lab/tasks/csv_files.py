"""Tables of numbers in CSV files: a sample a line, one column of labels, and if stated one of keys such as user ids.

Inputs are float32 (N, columns), standardised if stated by mean and deviation of the training samples, or int64, exact.
Labels that are all whole numbers are classes; others are float32, for a loss of one's own. Keys are any text.
"""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asgd_lab.errors import ScenarioError, meant
from asgd_lab.streams import generator
from asgd_lab.tasks.base import Data, check_free_memory, one_line
from asgd_lab.tasks.dataset_options import Kinds, check_options
from asgd_lab.tasks.own_data import check_rounding

_KINDS: Kinds = {
    "file": (str,), "label": (str, int), "key": (str, int, type(None)), "test_file": (str, type(None)),
    "test_share": (int, float), "seed": (int,), "header": (bool,), "delimiter": (str,), "standardise": (bool,),
    "integers": (bool,),
}  # fmt: skip
_CELL_BYTES = 80  # of memory at the peak: 55 measured, 78 with standardise
_EXACT = 2**53  # whole numbers up to here are float64


@dataclass(frozen=True, slots=True)
class _Options:
    file: str = ""
    label: str | int = -1  # a name of the header, or a position; negative ones count from the last column
    key: str | int | None = None
    test_file: str | None = None
    test_share: float = 0.2  # of the lines of `file`, drawn by `seed`, where there is no test_file
    seed: int = 0
    header: bool = True
    delimiter: str = ","
    standardise: bool = False  # each input column, by its mean and deviation in the training samples
    integers: bool = False  # inputs are whole numbers and stay so, as for an embedding

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> _Options:
        check_options("csv", given, _KINDS, {"seed": 0})
        found = cls(**given)
        if not found.file:
            raise ScenarioError.at("task.dataset_options", "file is missing: the CSV file, relative to data_folder")
        if len(found.delimiter) != 1 or found.delimiter in '\r\n"':
            raise ScenarioError.at("task.dataset_options.delimiter", "must be one character, such as ',' or ';'")
        if not 0 < found.test_share < 1:
            message = f"must be between 0 and 1; got {found.test_share}"
            raise ScenarioError.at("task.dataset_options.test_share", message)
        if found.standardise and found.integers:
            raise ScenarioError.at("task.dataset_options.standardise", "cannot stand beside integers, which stay whole")
        return found


@dataclass(frozen=True, slots=True)
class _Table:
    inputs: Tensor  # (N, columns) float64, or int64 with the option integers
    labels: Tensor  # (N,) float64
    keys: list[str]
    names: list[str] | None  # the header


def read(folder: str | None, given: Mapping[str, Any], train_samples: int | None) -> Data:
    """Inputs (N, columns), labels (N,) and keys (N,) of the training lines, and inputs and labels of the test lines."""
    if folder is None:
        raise ScenarioError.at("task.data_folder", "is missing: the folder of the CSV files")
    options, root = _Options.of(given), Path(folder).expanduser()
    table = _read(root / options.file, options)
    count = len(table.labels)
    if options.test_file is not None:
        test, train, chosen = _read(root / options.test_file, options), torch.arange(count), None
        _check_alike(options, table, test)
    else:
        order = torch.from_numpy(generator(options.seed, "csv").permutation(count))
        held = max(1, round(options.test_share * count))
        if held >= count:
            message = f"leaves nothing to train on: {options.file} has {count} samples"
            raise ScenarioError.at("task.dataset_options.test_share", message)
        test, train, chosen = table, order[held:].sort().values, order[:held].sort().values
    if train_samples is not None:
        if train_samples > len(train):
            message = f"{train_samples} is more than the {len(train)} training samples of {options.file}"
            raise ScenarioError.at("task.train_samples", message)
        train = train[:train_samples]
    labels, test_labels = table.labels[train], test.labels if chosen is None else test.labels[chosen]
    whole = all(bool((each == each.round()).all()) for each in (labels, test_labels))
    kind = torch.int64 if whole else torch.float32
    data = {"train_labels": labels.to(kind), "test_labels": test_labels.to(kind)}
    if not whole:
        check_rounding("train_labels", labels, data["train_labels"])
    data |= _inputs(options, table.inputs[train], test.inputs if chosen is None else test.inputs[chosen])
    if table.keys:
        numbers = {key: number for number, key in enumerate(sorted(set(table.keys)))}
        data["train_keys"] = torch.tensor([numbers[table.keys[each]] for each in train.tolist()])
    return data


def _check_alike(options: _Options, table: _Table, test: _Table) -> None:
    """A `ScenarioError` if the test file has other columns than the training file."""
    where = "task.dataset_options.test_file"
    if test.inputs.shape[1] != table.inputs.shape[1]:
        message = f"has {test.inputs.shape[1]} input columns, and {options.file} has {table.inputs.shape[1]}"
        raise ScenarioError.at(where, message)
    if test.names != table.names:
        pairs = zip(table.names or [], test.names or [], strict=False)
        one, other = next(((one, other) for one, other in pairs if one != other), ("more columns", "fewer"))
        raise ScenarioError.at(where, f"has another header than {options.file}: {other!r} in place of {one!r}")


def _inputs(options: _Options, train: Tensor, test: Tensor) -> Data:
    """The inputs as they are stored, and `standardised` (2, columns), mean and deviation, if they are."""
    found = {"train_images": train, "test_images": test}
    if options.integers:
        return found
    standard = Data()
    if options.standardise:
        values = train.numpy()
        mean, deviation = values.mean(0), values.std(0)
        deviation = torch.from_numpy(np.where(deviation > 0, deviation, 1.0))  # a constant column becomes 0
        found = {part: (each - torch.from_numpy(mean)) / deviation for part, each in found.items()}
        standard["standardised"] = torch.stack([torch.from_numpy(mean), deviation])
    for part, wide in found.items():
        narrow = wide.to(torch.float32)
        check_rounding(part, wide, narrow)
        found[part] = narrow
    return found | standard


def _read(path: Path, options: _Options) -> _Table:
    try:
        lines = _lines(path)
        with open(path, encoding="utf-8-sig", newline="") as opened:
            return _parsed(path, options, csv.reader(opened, delimiter=options.delimiter, strict=True), lines)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScenarioError.at("task.dataset_options", f"{path} cannot be read: {one_line(error)}") from error


def _lines(path: Path) -> int:
    """The number of lines, at most: blank lines count too, and those inside of quotes."""
    if path.exists() and not path.is_file():
        raise ScenarioError.at("task.dataset_options", f"{path} cannot be read: it is no regular file")
    with open(path, "rb") as opened:
        return 1 + sum(part.count(b"\n") for part in iter(lambda: opened.read(2**20), b""))


def _parsed(path: Path, options: _Options, reader: Any, lines: int) -> _Table:
    """The table; it has at most that many lines."""
    names: list[str] | None = None
    inputs, labels, keys, width = array("q" if options.integers else "d"), array("d"), list[str](), 0
    label = key = -1
    for row in reader:
        if not row:
            continue
        if not width:
            width = len(row)
            names = [each.strip() for each in row] if options.header else None
            label = _column(path, "label", options.label, names, width)
            key = -1 if options.key is None else _column(path, "key", options.key, names, width)
            if label == key:
                raise ScenarioError.at("task.dataset_options.key", "is the column of the labels")
            if width < 2 + (key >= 0):
                hint = f"; its first line is {row[0][:40]!r}, and delimiter is {options.delimiter!r}"
                raise ScenarioError.at("task.dataset_options", f"{path} has no column beside labels and keys{hint}")
            what = f"make the table too large: {path} takes"
            check_free_memory("task.dataset_options", what, _CELL_BYTES * width * lines)
            _check_header(path, options, row)
            if options.header:
                continue
        if len(row) != width:
            message = f"{path}:{reader.line_num}: has {len(row)} cells; the first line has {width}"
            raise ScenarioError.at("task.dataset_options", message)
        for column, cell in enumerate(row):
            if column == key:
                keys.append(cell.strip())
                continue
            whole = options.integers and column != label
            number: Any = _whole(cell) if whole else _number(cell, _EXACT if column == label else math.inf)
            if number is None:
                what = f"column {column + 1}" + (f" ({names[column]})" if names else "")
                message = f"{path}:{reader.line_num}: {what}: {cell[:40]!r} {_complaint(cell, whole)}"
                raise ScenarioError.at("task.dataset_options", message)
            (labels if column == label else inputs).append(number)
    if not labels:
        raise ScenarioError.at("task.dataset_options", f"{path} is empty: it has no line of numbers")
    kind = torch.int64 if options.integers else torch.float64
    values = torch.frombuffer(inputs, dtype=kind).view(len(labels), -1)
    return _Table(values, torch.frombuffer(labels, dtype=torch.float64), keys, names)


def _check_header(path: Path, options: _Options, row: list[str]) -> None:
    """A `ScenarioError` if the first line is no header where one is stated, or is one where none is."""
    is_key = [options.key in (column, column - len(row)) for column in range(len(row))]
    numbers = [_is_number(cell) for cell, skipped in zip(row, is_key, strict=True) if not skipped]
    where = "task.dataset_options.header"
    if options.header and all(numbers):
        message = f"{path}: its first line has only numbers, and would be lost as a header; header: false reads it"
        raise ScenarioError.at(where, message)
    if not options.header and not any(numbers):
        raise ScenarioError.at(where, f"{path}: its first line has no number; header: true takes it as names")


def _complaint(cell: str, whole: bool) -> str:
    """The fault of a cell that holds no finite number, or one that would be changed."""
    if not cell.strip():
        return "is no finite number: a value is missing; fill it in, or leave the line out"
    if not _is_number(cell):
        what = "is no finite number: inputs and labels are numbers"
        return f"{what}; encode a category as numbers, or a column for each value"
    if not math.isfinite(float(cell)):
        return "is no finite number"
    if whole:
        return "is no whole number of 64 bits; remove integers, or leave the column out"
    return "is too large: from 2**53 on, float64 changes whole numbers; integers: true keeps those of inputs"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str, limit: float) -> float | None:
    """The number of a cell; None if it is not finite, not below the limit, or a whole number that float64 changes."""
    try:
        found = float(cell)
    except ValueError:
        return None
    if not math.isfinite(found) or abs(found) >= limit:
        return None
    if abs(found) >= _EXACT and cell.strip().lstrip("+-").isdecimal() and int(cell) != found:
        return None
    return found


def _whole(cell: str) -> int | None:
    """The whole number of a cell, exact; None if it is none, or has more than 64 bits."""
    try:
        number = Decimal(cell.strip())
        if not number.is_finite() or number.adjusted() > 19 or number != number.to_integral_value():
            return None
    except InvalidOperation:
        return None
    return int(number) if -(2**63) <= number < 2**63 else None


def _column(path: Path, option: str, stated: str | int, names: list[str] | None, width: int) -> int:
    where = f"task.dataset_options.{option}"
    if isinstance(stated, int):
        if not -width <= stated < width:
            raise ScenarioError.at(where, f"{path} has {width} columns, 0 to {width - 1}; got {stated}")
        return stated % width
    if names is None:
        raise ScenarioError.at(where, "must be a position, since header is false")
    if names.count(stated) != 1:
        message = f"{path} has {names.count(stated)} columns {stated!r}{meant(stated, names)}"
        raise ScenarioError.at(where, f"{message}; its header is {', '.join(names)}")
    return names.index(stated)
