"""CSV files are learned from, divided by a key, and refused in one line where a cell or an option is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asgd_lab.errors import ScenarioError
from asgd_lab.record.run import read_manifest
from asgd_lab.task_keys.networks import ByKey
from asgd_lab.tasks import build, load
from tests.cli.harness import asgd_lab
from tests.tasks.configs import Classification

LINES = [f"u{i % 5},{i / 8},{i % 3}" for i in range(40)]
SCENARIO = """\
name: table
task: {name: classification, dataset: csv, data_folder: FOLDER, batch_size: 2, data: by_key, dataset_options: {OPTIONS}}
algorithm: {name: asgd, n_sync: 2}
workers: WORKERS
budget: {minibatches: 8}
backend: inline
"""


def written(folder: Path, options: str = "file: t.csv, label: y, key: user", workers: int = 2) -> Path:
    (folder / "t.csv").write_text("\n".join(["user,x,y", *LINES]))
    path = folder / "table.yaml"
    path.write_text(
        SCENARIO.replace("FOLDER", str(folder)).replace("OPTIONS", options).replace("WORKERS", str(workers))
    )
    return path


def test_a_table_is_learned_from_and_every_worker_owns_whole_users(tmp_path: Path) -> None:
    path = written(tmp_path)
    said = asgd_lab("run", path, "--out", tmp_path / "out")
    assert said.status == 0, said
    options = {"file": "t.csv", "label": "y", "key": "user"}
    config = Classification("csv", str(tmp_path), batch_size=2, dataset_options=options, data=ByKey(name="by_key"))
    data = load(config)
    assert data["train_images"].shape == (32, 1)
    assert len(data["test_labels"]) == 8
    task = build(config, 0, data, workers=2)
    users = []
    for worker in range(2):
        order = task.learner(worker, task.initial()).batches.order  # type: ignore[attr-defined]
        users.append({int(data["train_keys"][each]) for step in range(5) for each in order(step)})
    assert not users[0] & users[1]


def test_lines_without_a_header_and_a_second_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1;0.5;2\n0;0.25;3\n")
    (tmp_path / "b.csv").write_text("1;4;5\n")
    options = {"file": "a.csv", "test_file": "b.csv", "label": 0, "header": False, "delimiter": ";"}
    data = load(Classification("csv", str(tmp_path), dataset_options=options))
    assert data["train_images"].tolist() == [[0.5, 2.0], [0.25, 3.0]]
    assert data["train_labels"].tolist() == [1, 0]
    assert data["test_images"].tolist() == [[4.0, 5.0]]


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("user,x,y\nu,1,two\n", {}, r"t.csv:2: column 3 \(y\): 'two' is no finite number: .* encode a category"),
        ("user,x,y\nu,red,2\n", {}, r"t.csv:2: column 2 \(x\): 'red' is no finite number: .* encode a category"),
        ("user,x,y\nu,nan,2\n", {}, r"t.csv:2: column 2 \(x\): 'nan' is no finite number"),
        ("user,x,y\nu,,2\n", {}, r"t.csv:2: column 2 \(x\): '' is no finite number: a value is missing"),
        ("user,1.5,2\nu,1,2\n", {"label": 2, "key": 0}, "first line has only numbers, and would be lost as a header"),
        ("user,x,y\nu,1,2\n", {"label": 2, "key": 0, "header": False}, "first line has no number; header: true"),
        (
            "user,x,y\n" + "u,1.5,2\n" * 9,
            {"integers": True},
            r"t.csv:2: column 2 \(x\): '1.5' is no whole number of 64 bits; remove integers",
        ),
        ("user,x,y\nu,1,2\n", {"integers": True, "standardise": True}, "cannot stand beside integers"),
        ("user,x,y\n" + "".join(f"u,{10**9 + each},2\n" for each in range(9)), {}, "train_images is float64, of which"),
        (f"user,x,y\nu,{2**63},2\n", {"integers": True}, "is no whole number of 64 bits"),
        ("user,x,y\nu,1e999999999,2\n", {"integers": True}, "is no finite number"),
        (f"user,x,y\nu,{2**53 + 1},2\n", {}, "is too large: from 2.*53 on, float64 changes whole numbers"),
        (f"user,x,y\nu,{2**60 + 1},2\n", {"standardise": True}, "float64 changes whole numbers; integers: true"),
        (f"user,x,y\nu,1,{2**53 + 1}\n", {}, "is too large: from 2.*53 on, float64 changes whole numbers"),
        ("user,x,y\nu,1\n", {}, "t.csv:2: has 2 cells; the first line has 3"),
        ("", {}, "is empty"),
        ("user,x,y\n", {}, "is empty"),
        ("user,x,y\nu,1,2\n", {"label": "z"}, "has 0 columns 'z'"),
        ("user,x,y\nu,1,2\n", {"label": 3}, "has 3 columns, 0 to 2; got 3"),
        ("user,x,y\nu,1,2\n", {"label": "user"}, "is the column of the labels"),
        ("user,x,y\nu,1,2\n", {"lable": 1}, "csv takes no 'lable'"),
        ("user,x,y\nu,1,2\n", {"test_share": 1.5}, "must be between 0 and 1"),
        ("user,x,y\nu,1,2\n", {"test_file": "none.csv"}, "none.csv cannot be read"),
        ("user,x,y\nu,1,2\n", {}, "leaves nothing to train on"),
    ],
)
def test_a_wrong_cell_or_option_is_told_in_one_line(
    tmp_path: Path, content: str, options: dict[str, object], words: str
) -> None:
    (tmp_path / "t.csv").write_text(content)
    stated = {"file": "t.csv", "label": "y", "key": "user", **options}
    with pytest.raises(ScenarioError, match=words) as caught:
        load(Classification("csv", str(tmp_path), dataset_options=stated))
    assert "\n" not in str(caught.value)


def test_more_workers_than_users_and_users_without_a_key_are_refused(tmp_path: Path) -> None:
    for options, workers, words in (
        ("file: t.csv, label: y, key: user", 6, "6 is more than the 5 keys of task.data"),
        ("file: t.csv, label: y, key: 0, header: false", 2, "must be a position"),
        ("file: t.csv, label: z, key: user", 2, "has 0 columns 'z'"),
        ("file: u.csv, label: 2", 2, "by_key needs keys"),
    ):
        (tmp_path / "u.csv").write_text("a,b,c\n" + "1,2,0\n1,2,1\n" * 10)
        said = asgd_lab("validate", written(tmp_path, options, workers))
        assert (said.status, said.err.count("\n")) == (2, 1), said
        assert words in said.err


def test_columns_are_standardised_by_the_training_rows_alone_and_the_record_has_them(tmp_path: Path) -> None:
    train, test = [(10.0 * i, 5, 1_000_000_000 + i, i % 2) for i in range(8)], [(1e6, 5, 1_000_000_003, 1)] * 4
    for name, rows in (("a.csv", train), ("b.csv", test)):
        lines = [",".join(map(str, row)) for row in rows]
        (tmp_path / name).write_text("\n".join(["x,same,time,y", *lines]))
    options = {"file": "a.csv", "test_file": "b.csv", "standardise": True}
    data = load(Classification("csv", str(tmp_path), dataset_options=options))
    seen = data["train_images"]
    assert seen.mean(0).abs().max() < 1e-6
    assert seen.std(0, correction=0).tolist() == pytest.approx([1.0, 0.0, 1.0], abs=1e-6)
    assert data["test_images"][0].tolist() == pytest.approx([(1e6 - 35) / 22.9129, 0.0, (3 - 3.5) / 2.29129], rel=1e-5)
    path = written(tmp_path, "file: t.csv, label: y, key: user, standardise: true")
    assert asgd_lab("run", path, "--out", tmp_path / "out").status == 0
    standard = read_manifest(tmp_path / "out")["inputs"]["data"]["standard"]
    kept = load(Classification("csv", str(tmp_path), dataset_options={"file": "t.csv", "label": "y", "key": "user"}))
    assert standard["mean"] == pytest.approx([kept["train_images"].double().mean().item()])
    assert standard["deviation"] == pytest.approx([kept["train_images"].double().std(correction=0).item()])
    assert asgd_lab("replay", tmp_path / "out").status == 0


WHOLE = [2**53 + 1, 2**62 + 1, 2**63 - 1, -(2**63), -(2**53) - 1, 0, 7, 2**40, 2**24 + 1, -1]


def test_whole_numbers_stay_exact_where_that_is_stated(tmp_path: Path) -> None:
    cells = [*map(str, WHOLE), "12.0", "1e3", "9007199254740993.0", "+5", " 6 "]
    (tmp_path / "t.csv").write_text("a,b,y\n" + "".join(f"{cell},{-i},{i % 2}\n" for i, cell in enumerate(cells)))
    data = load(Classification("csv", str(tmp_path), dataset_options={"file": "t.csv", "integers": True}))
    rows = torch.cat([data["train_images"], data["test_images"]])
    assert rows.dtype == torch.int64
    assert sorted(rows[:, 0].tolist()) == sorted([*WHOLE, 12, 1000, 2**53 + 1, 5, 6])


@pytest.mark.parametrize("number", [*WHOLE, 6.02e23, 2**60, 3.5e-40])
def test_a_number_reaches_float32_as_near_as_it_can_or_is_refused(tmp_path: Path, number: float) -> None:
    (tmp_path / "t.csv").write_text("a,y\n" + f"{number},1\n{number},0\n" * 5)
    config = Classification("csv", str(tmp_path), dataset_options={"file": "t.csv"})
    if isinstance(number, int) and float(number) != number:
        with pytest.raises(ScenarioError, match="float64 changes whole numbers"):
            load(config)
    else:
        assert set(load(config)["train_images"].flatten().tolist()) == {
            float(torch.tensor(number, dtype=torch.float32))
        }


def test_a_test_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,z,y\n1,2,0\n2,3,1\n")
    options = {"file": "a.csv", "test_file": "b.csv"}
    for header, words in (("z,x,y", "has another header than a.csv: 'z' in place of 'x'"), ("x,y", "1 input columns")):
        (tmp_path / "b.csv").write_text(header + "\n" + ",".join("1" for _ in header.split(",")) + "\n")
        with pytest.raises(ScenarioError, match=words):
            load(Classification("csv", str(tmp_path), dataset_options=options))
