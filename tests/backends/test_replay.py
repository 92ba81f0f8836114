"""A recorded real run repeated in one process: the same bits, and what is said where they are not."""

from __future__ import annotations

import itertools
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asgd_lab.backends import event_log
from asgd_lab.backends.event_log import Kind, Row
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files, file_hashes
from asgd_lab.record.rowfile import RowFile
from asgd_lab.scenario import Scenario
from tests.cli.harness import asgd_lab
from tests.whole import sample

from .scenarios import DIGITS, QUADRATIC, run, scenario

ALGORITHMS: dict[str, dict[str, Any]] = {
    "asgd": {"name": "asgd", "n_sync": 3, "rule": ["scale", {"name": "momentum", "beta": 0.5}]},
    "uncoupled": {"name": "asgd", "n_fetch": 4, "n_push": 3},
    "gradients": {"name": "asgd", "n_sync": 2, "push": "gradient", "rule": [{"name": "adagrad", "lr": 0.05}]},
    "ssp": {"name": "ssp", "n_sync": 2, "bound": 1},
    "sync_sgd": {"name": "sync_sgd", "n_sync": 2},
    "downpour": {"name": "downpour", "n_fetch": 3, "n_push": 5, "depth": 2, "momentum_at_fetch": "reset"},
}
PROCESS = {"name": "process", "digest_every_updates": 5}


def recorded(out: Path, **parts: Any) -> Scenario:
    parts = {"backend": PROCESS, "budget": {"minibatches": 300}, **parts}
    run(out, **parts)
    return scenario(**parts)


@pytest.mark.parametrize(("name", "workers"), sample(itertools.product(ALGORITHMS, [1, 2, 4]), 9))
def test_a_real_run_repeats_to_the_bit(tmp_path: Path, name: str, workers: int) -> None:
    stated = recorded(tmp_path / "run", workers=workers, algorithm=ALGORITHMS[name])
    verdict = repeat(stated, tmp_path / "run")
    assert verdict.difference is None
    assert verdict.final
    assert verdict.pushes >= verdict.versions > 0
    assert verdict.digests == 1 + verdict.versions // 5


def test_a_network_repeats_to_the_bit_by_the_command(tmp_path: Path) -> None:
    recorded(tmp_path / "run", workers=3, task=DIGITS, evaluate={"every_minibatches": 50})
    said = asgd_lab("replay", tmp_path / "run")
    assert said.status == 0
    assert "the final parameters are the same bits" in " ".join(said.out.split())


@pytest.mark.parametrize("backend", ["sim", "inline"])
def test_a_simulated_run_repeats_too(tmp_path: Path, backend: str) -> None:
    run(tmp_path / "run", backend=backend, workers=3)
    assert asgd_lab("replay", tmp_path / "run").status == 0
    path = tmp_path / "run" / "summary.json"
    summary = atomic_files.read_json(path)
    path.write_text(path.read_text().replace('"params_sha256": "', '"params_sha256": "0'))
    said = asgd_lab("replay", tmp_path / "run")
    assert said.status == 2
    assert "summary.json: is damaged" in said.err
    atomic_files.write_json(path, {**summary, "params_sha256": "0"})
    said = asgd_lab("replay", tmp_path / "run")
    assert said.status == 2
    assert "summary.json: is damaged: it is not the file that the run wrote" in said.err
    sealed(tmp_path / "run")
    said = asgd_lab("replay", tmp_path / "run")
    assert said.status == 1
    assert "params_sha256 is" in said.err


def sealed(out: Path) -> dict[str, Any]:
    """Make the manifest vouch for what is there: what is left to find is a record that contradicts itself."""
    manifest = atomic_files.read_json(out / "manifest.json") | file_hashes.seals(out)
    atomic_files.write_json(out / "manifest.json", manifest)
    return manifest


def tampered(out: Path, change: Callable[[int, Row], Row | None]) -> None:
    """The record with some of its events changed, or (None) left out."""
    past = event_log.read(out / event_log.FILE)
    (out / event_log.FILE).unlink()
    rows = RowFile(out / event_log.FILE, event_log.FORMAT)
    rows.add(*Row(Kind.FORMAT, number=event_log.VERSION))
    for index, row in enumerate(past):
        changed = change(index, row)
        if changed is not None:
            rows.add(*changed)
    rows.close()


def nth(kind: Kind, number: int, what: Callable[[Row], Row | None]) -> Callable[[int, Row], Row | None]:
    """Change the `number`-th event of that kind."""
    seen: list[int] = []

    def change(index: int, event: Row) -> Row | None:
        if event.kind == kind:
            seen.append(index)
        return what(event) if event.kind == kind and len(seen) == number else event

    return change


def next_double(value: float) -> float:
    """One bit away."""
    (bits,) = struct.unpack("q", struct.pack("d", value))
    changed: float = struct.unpack("d", struct.pack("q", bits ^ 1))[0]
    return changed


def flipped(event: Row) -> Row:
    return event._replace(loss=next_double(event.loss))


TAMPERED: dict[str, tuple[Callable[[int, Row], Row | None], str]] = {
    "a loss by its last bit": (nth(Kind.PUSH, 7, flipped), r"push \d+ of worker \d.* its loss is"),
    "a base": (nth(Kind.PUSH, 7, lambda event: event._replace(base=0)), r"its base is \d+ here and 0"),
    "a push left out": (nth(Kind.PUSH, 7, lambda event: None), "it was answered|the record has|pushes work on"),
    "a fetch left out": (nth(Kind.FETCH, 5, lambda event: None), "it was answered|the record has"),
    "a hash": (
        nth(Kind.DIGEST, 3, lambda event: event._replace(detail=event.detail ^ 1)),
        "version 10: the parameters",
    ),
    "the version that a push went into": (
        nth(Kind.PUSH, 7, lambda event: event._replace(version=event.version + 1)),
        r"it was answered push \d+: in \d+, stale \d in the record, and push",
    ),
    "a lease": (nth(Kind.FETCH, 5, lambda event: event._replace(steps=7)), "7 minibatches on version .* in the record"),
    "a stop that was none": (
        nth(Kind.FETCH, 5, lambda event: event._replace(stopped=2, wasted=1, returned=3)),
        "as if it had been stopped|its stopped is 0 here and 2 in the record",
    ),
    "a push of nobody": (nth(Kind.PUSH, 4, lambda event: event._replace(worker=7)), "worker 7 is not there"),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, Path]:
    out = tmp_path_factory.mktemp("original") / "run"
    return recorded(out, workers=2), out


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_record_is_found_where_it_was_tampered_with(
    tmp_path: Path, original: tuple[Scenario, Path], name: str
) -> None:
    stated, out = original
    shutil.copytree(out, tmp_path / "run")
    change, said = TAMPERED[name]
    tampered(tmp_path / "run", change)
    verdict = repeat(stated, tmp_path / "run")
    assert verdict.difference is not None
    assert re.search(said, verdict.difference), verdict.difference


@pytest.fixture(scope="module")
def buffered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, Path]:
    """A run whose pushes are kept, and end with a later message, and whose updates are encoded."""
    out = tmp_path_factory.mktemp("buffered") / "run"
    algorithm = {
        "name": "tests.outside.fedbuff:FedBuff", "n_sync": 2, "k": 3, "rule": ["add"],
        "codec": {"name": "tests.outside.top_k:TopK", "share": 0.3},
    }  # fmt: skip
    stated = scenario(algorithm=algorithm, backend="process", workers=2, budget={"minibatches": 120})
    execute(stated, out)
    return stated, out


COLUMNS = {  # of a kind of rows, without times: a run states its own
    Kind.FETCH: ("incarnation", "number", "steps", "detail", "part", "stopped", "wasted", "returned", "version"),
    Kind.PUSH: (
        "incarnation", "number", "base", "steps", "detail", "part", "size_bytes", "stopped", "wasted", "returned",
        "version", "staleness", "reason", "loss",
    ),
    Kind.ACK: ("worker", "incarnation", "number", "steps", "part", "version", "staleness", "reason"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "column"), [(kind, column) for kind, names in COLUMNS.items() for column in names])
def test_no_column_of_a_message_or_an_answer_can_be_changed_unnoticed(
    tmp_path: Path, buffered: tuple[Scenario, Path], kind: Kind, column: str
) -> None:
    stated, out = buffered
    shutil.copytree(out, tmp_path / "run")
    tampered(tmp_path / "run", nth(kind, 5, lambda row: row._replace(**{column: getattr(row, column) + 1})))
    assert repeat(stated, tmp_path / "run").difference is not None


def test_no_answer_to_another_message_can_be_left_out(tmp_path: Path, buffered: tuple[Scenario, Path]) -> None:
    stated, out = buffered
    shutil.copytree(out, tmp_path / "run")
    tampered(tmp_path / "run", nth(Kind.ACK, 5, lambda row: None))
    verdict = repeat(stated, tmp_path / "run")
    assert verdict.difference is not None
    assert "before this, and not in the record" in verdict.difference


def test_other_final_parameters_are_found_and_the_environment_is_named(tmp_path: Path) -> None:
    recorded(tmp_path / "run", workers=2, algorithm={"name": "asgd", "n_sync": 3})
    path = tmp_path / "run" / "checkpoints" / "final.npz"
    with np.load(path) as stored:
        params = stored["params"].copy()
    params[0] = np.nextafter(params[0], np.float32(1))
    np.savez(path, params=params)
    manifest = tmp_path / "run" / "manifest.json"
    facts = sealed(tmp_path / "run")
    facts["versions"]["numpy"] = "0.1"
    atomic_files.write_json(manifest, facts)
    said = asgd_lab("replay", tmp_path / "run")
    assert said.status == 1
    assert "the final parameters, version" in said.err
    assert "recorded elsewhere: numpy 0.1 there" in said.err


def test_what_cannot_be_repeated_is_refused(tmp_path: Path) -> None:
    said = asgd_lab("replay", tmp_path)
    assert said.status == 2
    assert "is not a run directory" in said.err
    run(tmp_path / "hogwild", backend="process", workers=2, algorithm={"name": "hogwild", "n_sync": 2})
    said = asgd_lab("replay", tmp_path / "hogwild")
    assert said.status == 2
    assert "is a run of hogwild" in said.err
    stated = recorded(tmp_path / "run")
    (tmp_path / "run" / event_log.FILE).unlink()
    with pytest.raises(ScenarioError, match="has no record of its events"):
        repeat(stated, tmp_path / "run")


def test_workers_of_hogwild_share_one_vector(tmp_path: Path) -> None:
    """Its tables count as any other's, and it learns; alone it gives the same bits wherever it runs."""
    out = tmp_path
    parts: dict[str, Any] = {"task": QUADRATIC, "budget": {"minibatches": 60}}
    alone = [
        run(out / f"{name}-{backend}", algorithm={"name": name, "n_sync": 3}, backend=backend, **parts)
        for name, backend in (("hogwild", "process"), ("hogwild", "inline"))
    ]
    assert len({each["params_sha256"] for each in alone}) == 1
    together = run(out / "two", algorithm={"name": "hogwild", "n_sync": 3}, backend="process", workers=2, **parts)
    assert together["minibatches"] == 60
    assert together["final"]["test_loss"] < 0.5
