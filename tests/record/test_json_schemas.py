"""A checksum can be computed by anybody: every key of a record's JSON files, with a value of another type, is refused
in one line or does not matter; never a traceback."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files, checkpoints, file_hashes
from tests.cli.harness import asgd_lab
from tests.whole import sample

SCENARIO = """\
name: bowl
seed: 1
task: {{name: quadratic, curvature: [1.0, 4.0], noise: 0.1}}
algorithm: {{name: asgd, n_sync: 2}}
workers: 2
budget: {{minibatches: 200}}
backend: {backend}
hardware: {{compute: {{step_s: 0.001}}}}
"""
BACKENDS = {
    "sim": "sim",
    "process": "{name: process, device: emulated, digest_every_updates: 5, checkpoint: {every_updates: 20, keep: 2}}",
}
WRONG: list[Any] = [None, [], {}, "x", 7, -1, True, 1e300, [[]], {"a": 1}, "absent"]
Keys = tuple[str | int, ...]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("records")
    for name, backend in BACKENDS.items():
        (folder / f"{name}.yaml").write_text(SCENARIO.format(backend=backend))
        assert asgd_lab("run", folder / f"{name}.yaml", "--out", folder / name).status == 0
    return {name: folder / name for name in BACKENDS}


def keys(value: Any, above: Keys = ()) -> Iterator[Keys]:
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*above, key)
        yield from keys(inner, (*above, key))


def put(value: Any, path: Keys, wrong: Any) -> None:
    *above, last = path
    for key in above:
        value = value[key]
    if wrong == "absent":
        del value[last]
    else:
        value[last] = wrong


def commands(record: Path, run: Path) -> dict[str, list[str | Path]]:
    return {
        "replay": ["replay", run],
        "tensorboard": ["tensorboard", run, "--out", run.parent / "board"],
        "resume": ["run", record.with_suffix(".yaml"), "--resume", "--out", run],
    }


@pytest.mark.parametrize("file", ["manifest.json", "summary.json"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("command", ["replay", "tensorboard", "resume"])
def test_a_key_of_another_type_is_refused_in_a_line_or_does_not_matter(
    records: dict[str, Path], tmp_path: Path, backend: str, file: str, command: str
) -> None:
    record = records[backend]
    found = list(keys(atomic_files.read_json(record / file)))
    for number, (path, wrong) in enumerate(sample([(path, wrong) for path in found for wrong in WRONG], 4)):
        run = Path(shutil.copytree(record, tmp_path / str(number) / "run"))
        facts = atomic_files.read_json(run / file)
        put(facts, path, wrong)
        atomic_files.write_json(run / file, facts)
        if file == "summary.json":  # let the manifest vouch for it
            manifest = atomic_files.read_json(run / "manifest.json")
            atomic_files.write_json(run / "manifest.json", {**manifest, **file_hashes.seals(run)})
        said = asgd_lab(*commands(record, run)[command])
        assert said.status in (0, 1, 2), (path, wrong, said)
        assert said.err.count("\n") == (said.status != 0), (path, wrong, said)


def test_a_checkpoint_of_another_shape_is_refused(records: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = checkpoints.all_of(records["process"])[-1]
    facts = atomic_files.read_json(checkpoint / "state.json")
    wrongs = [("rows", {"../../another/events.rows": 0}), ("files", {"/etc/passwd": "00000000"}), ("workers", [-1])]
    wrongs += [(key, wrong) for key in facts for wrong in ("x", -1, None, [[]])]
    for key, wrong in wrongs:
        copy = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint", dirs_exist_ok=True))
        atomic_files.write_json(copy / "state.json", {**facts, key: wrong})
        with pytest.raises(ScenarioError, match=r"state\.json: is damaged: "):
            checkpoints.check(copy)
