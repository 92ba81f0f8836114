"""Inputs of any size are answered in a line, soon, and before anything is built."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from asgd_lab.errors import MOST_CHARACTERS, MOST_LINES, ScenarioError
from asgd_lab.scenario import Document, parse_assignment
from tests.cli.harness import QUADRATIC, Said, asgd_lab

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{here}: &{here} [{', '.join([f'*{before}'] * 9)}]\n" for before, here in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{here}: &{here} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, here in zip("abcdefgh", "bcdefghi", strict=True)
)
TEXTS = {
    "aliases": BOMB,
    "merges": MERGES,
    "a long text many times": f"a: &a '{'x' * 10_000}'\nb: [{', '.join(['*a'] * 1000)}]\n",
    "a mapping in itself": "a: &a {b: *a}\n",
    "lists in themselves": "a: &a [*a, *a, *a, *a]\n",
    "brackets": "a: " + "[" * 100_000,
    "closed brackets": "a: " + "[" * 5000 + "]" * 5000,
    "braces": "a: " + "{b: " * 5000,
    "dashes": "- " * 50_000,
    "indentation": "".join(" " * depth + f"k{depth}:\n" for depth in range(900)),
    "a long name": QUADRATIC.replace("bowl", "b" * 900_000),
    "a long key": QUADRATIC + "k" * 900_000 + ": 1\n",
    "a long key in quotes": QUADRATIC + '? "' + "k" * 900_000 + '"\n: 1\n',
    "a list as a key": QUADRATIC + "? [" + "1, " * 10_000 + "1]\n: 1\n",
    "a long number": QUADRATIC.replace("seed: 3", "seed: " + "9" * 5000),
    "a long hexadecimal number": QUADRATIC.replace("seed: 3", "seed: 0x" + "f" * 4400),
    "a long negative number": QUADRATIC.replace("seed: 3", "seed: -0o" + "7" * 9000),
    "a long exponent": QUADRATIC.replace("0.01", "1e" + "9" * 5000),
    "many unknown keys": QUADRATIC + "".join(f"k{number}: 1\n" for number in range(20_000)),
    "many unknown swept keys": QUADRATIC + "sweep: {" + ", ".join(f"k{n}: [1]" for n in range(3000)) + "}",
    "too many points": QUADRATIC + "sweep: {" + ", ".join(f"{key}: [{', '.join(map(str, range(1, 101)))}]" for key in (
        "workers", "seed", "algorithm.n_sync", "budget.minibatches", "task.batch_size")) + "}",
    "a long tag": "a: !" + "t" * 100_000 + " 1\n",
    "a long anchor": "a: *" + "t" * 100_000 + "\n",
    "a text that steers the terminal": QUADRATIC.replace("bowl", '"\\e]0;owned\\a\\e[2J"'),
    "longer than any": "# " + "x" * 5_000_000,
}  # fmt: skip


def refused(said: Said) -> list[str]:
    assert (said.status, said.out) == (2, "")
    lines = said.err.splitlines()
    assert 1 <= len(lines) <= MOST_LINES + 1
    assert all(len(line) <= MOST_CHARACTERS and line.isprintable() for line in lines)
    return lines


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_of_any_size_is_refused_in_lines_that_can_be_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(TEXTS[name])
    began = time.process_time()
    lines = refused(asgd_lab("validate", path))
    assert time.process_time() - began < 30.0
    assert all(line.startswith(f"{path}:") or line.startswith("and ") for line in lines)


@pytest.mark.parametrize("name", ["aliases", "merges", "lists in themselves", "closed brackets"])
def test_an_assignment_has_the_same_bounds(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(QUADRATIC)
    lines = refused(asgd_lab("validate", path, "--set", f"task.curvature={TEXTS[name]}"))
    assert len(lines) == 1
    assert lines[0].startswith("--set task.curvature: ")


@pytest.mark.parametrize("key", ["k" * 100_000, ".".join("k" * 5000), "task.curvature." + "9" * 5000, "..", "=", "٣"])
def test_an_assignments_key_has_bounds_too(tmp_path: Path, key: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(QUADRATIC)
    refused(asgd_lab("validate", path, "--set", f"{key}=1"))


def test_what_is_no_file_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("socket")
        kinds = {"fifo": "a pipe", "socket": "a socket", "/dev/zero": "a device", "/dev/null": "a device", ".": "a dir"}
        for name, kind in kinds.items():
            for command in ("run", "validate"):
                (line,) = refused(asgd_lab(command, name))
                assert line.startswith(f"{name}: is {kind}")
    for name in ("no", "x/" * 3000, "n" * 300, "nul\0"):
        assert len(refused(asgd_lab("validate", name))) == 1


def test_a_descriptor_is_read_which_the_shell_gives(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, QUADRATIC.encode())
    os.close(theirs)
    try:
        assert asgd_lab("validate", f"/dev/fd/{ours}").status == 0
    finally:
        os.close(ours)


def test_points_are_counted_and_not_listed(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(QUADRATIC)
    (line,) = refused(asgd_lab("run", path, "--seeds", "1000000000"))
    assert line == "--seeds: makes 1,000,000,000 runs; at most 100,000 are one command's"
    (line,) = refused(asgd_lab("run", path, "--seeds", "3", "--seed", str(2**63 - 2)))
    assert line.startswith("--seeds: 3 seeds from ")
    large = Document.read(path).points({"sweep.seed": list(range(5_000))})
    assert len(large) == 5_000
    assert [large[number].scenario.seed for number in (0, 2_345, -1)] == [0, 2_345, 4_999]
    with pytest.raises(IndexError):
        large[5_000]


def test_a_point_is_the_one_of_its_number_in_the_product(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(QUADRATIC + "sweep: {workers: [1, 2], algorithm.n_sync: [1, 2, 3], seed: [5, 6]}\n")
    document = Document.read(path)
    points = document.points()
    found = [(p.scenario.workers, p.scenario.algorithm.n_sync, p.scenario.seed) for p in points]
    assert found == [(w, n, s) for w in (1, 2) for n in (1, 2, 3) for s in (5, 6)]
    assert points[2:4] == list(points)[2:4]
    twice = document.replicated(document.points({"seed": 7}), 2)
    assert [each.scenario.seed for each in twice] == [7, 8] * 6


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=50), st.integers(1, 200_000))
def test_no_message_is_longer_than_a_few_lines_whatever_it_echoes(piece: str, times: int) -> None:
    text = piece * (1 + times // len(piece))
    for error in (ScenarioError(text), ScenarioError.at("k", text), ScenarioError.all_of("k", [text] * 50)):
        lines = str(error).splitlines()
        assert len(lines) <= MOST_LINES + 1
        assert all(len(line) <= MOST_CHARACTERS for line in lines)
    with pytest.raises(ScenarioError) as caught:
        parse_assignment(text.replace("=", "-"))
    assert len(str(caught.value).splitlines()) == 1
