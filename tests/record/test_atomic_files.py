"""Whole files: each flipped bit, each cut and each thing in a file's place is found, and named in one line."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files

VALUE = {"name": "größe ✓", "counts": {"a": [1, 2.5, None]}, "makespan_s": 0.1 + 0.2}
ARRAYS = {"params": np.arange(5, dtype=np.float32), "place": np.array([3, 4])}

Read = Callable[[Path], dict[str, Any]]


@pytest.fixture(params=["json", "npz"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Read]:
    """A file of either kind, and its reader."""
    path = tmp_path / f"kept.{request.param}"
    if request.param == "json":
        atomic_files.write_json(path, VALUE)
        return path, atomic_files.read_json
    atomic_files.write_arrays(path, ARRAYS)
    return path, lambda path: {name: array.tolist() for name, array in atomic_files.read_arrays(path).items()}


def read_or_named(path: Path, read: Read) -> dict[str, Any] | None:
    """What is read, or None where one line names the file; anything else fails."""
    try:
        return read(path)
    except ScenarioError as error:
        said = str(error)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return None


def test_what_is_written_comes_back(kept: tuple[Path, Read]) -> None:
    path, read = kept
    assert read(path) == (VALUE if path.suffix == ".json" else {"params": [0.0, 1.0, 2.0, 3.0, 4.0], "place": [3, 4]})
    assert os.listdir(path.parent) == [path.name]


def test_every_flipped_bit_is_found_or_changes_nothing(kept: tuple[Path, Read]) -> None:
    path, read = kept
    content, value = path.read_bytes(), read(path)
    found = 0
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        came = read_or_named(path, read)
        found += came is None
        assert came in (None, value)
    assert found > 0.9 * 8 * len(content), "white space between the fields of JSON may change"


def test_every_cut_is_found(kept: tuple[Path, Read]) -> None:
    path, read = kept
    content, value = path.read_bytes(), read(path)
    for size in range(len(content)):
        path.write_bytes(content[:size])
        assert read_or_named(path, read) == (value if content[size:] == b"\n" else None)


@pytest.mark.parametrize("content", [
    b"", b"[]", b"3", b"null", b"{", b"[" * 100_000, b"\xff\xfe", b'{"a": NaN}x', b"PK\x05\x06" + bytes(18),
    b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999,), }", bytes(4000),
    b'{"format": 2, "crc32": "00000000"}', b'{"crc32": "00000000"}', b"\x80\x04K\x01.",
])  # fmt: skip
def test_a_file_of_anything_else_is_named(kept: tuple[Path, Read], content: bytes) -> None:
    path, read = kept
    path.write_bytes(content)
    assert read_or_named(path, read) is None or content == b"PK\x05\x06" + bytes(18), "that is an empty archive"


def test_anything_in_a_files_place_is_named_and_not_waited_for(kept: tuple[Path, Read]) -> None:
    path, read = kept
    path.unlink()
    assert read_or_named(path, read) is None
    path.mkdir()
    assert read_or_named(path, read) is None
    path.rmdir()
    path.symlink_to(path.parent / "absent")
    assert read_or_named(path, read) is None
    path.unlink()
    path.symlink_to("/dev/zero")
    assert read_or_named(path, read) is None
    path.unlink()
    os.mkfifo(path)
    assert read_or_named(path, read) is None


def test_json_stays_readable_and_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    atomic_files.write_json(tmp_path / "kept.json", {"name": "größe", "loss": float("nan"), "n": np.int64(3)})
    text = (tmp_path / "kept.json").read_text(encoding="utf-8")
    assert text.startswith('{\n  "name": "größe",\n  "loss": null,\n  "n": 3,\n')
    assert json.loads(text)["format"] == 1


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text(json.dumps(VALUE), encoding="utf-8")
    assert atomic_files.read_json(tmp_path / "kept.json") == VALUE
    np.savez(tmp_path / "kept.npz", **ARRAYS)
    assert atomic_files.read_arrays(tmp_path / "kept.npz")["place"].tolist() == [3, 4]
    assert atomic_files.checksum_of(tmp_path / "kept.npz") is None


def test_an_archive_stays_one_that_others_can_read(tmp_path: Path) -> None:
    atomic_files.write_arrays(tmp_path / "kept.npz", ARRAYS)
    with zipfile.ZipFile(tmp_path / "kept.npz") as archive:
        assert archive.testzip() is None
    with np.load(tmp_path / "kept.npz") as stored:
        assert stored["place"].tolist() == [3, 4]


def test_no_pickle_is_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "kept.npz", params=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ScenarioError, match="allow_pickle"):
        atomic_files.read_arrays(tmp_path / "kept.npz")


def test_packed_arrays_are_not_unpacked(tmp_path: Path) -> None:
    """A few kilobytes that would become gigabytes."""
    path = tmp_path / "kept.npz"
    np.savez_compressed(path, params=np.zeros(10_000_000))
    with pytest.raises(ScenarioError, match=r"kept\.npz: is damaged: its arrays are packed"):
        atomic_files.read_arrays(path)


def test_a_file_that_cannot_be_completed_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    atomic_files.write(path, b"before")

    def fail() -> None:
        with atomic_files.replacing(path) as file:
            file.write(b"half of it")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == [path.name]


def test_a_file_and_its_folder_are_on_the_disk_before_anybody_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        done.append(f"{source.name} -> {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    atomic_files.write_arrays(tmp_path / "kept.npz", ARRAYS)
    assert done == ["kept.npz.new", "kept.npz.new -> kept.npz", tmp_path.name]
