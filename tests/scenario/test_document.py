"""Overrides, sweeps, locations and YAML's types: what a file says, changed on the command line, swept, blamed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from asgd_lab.algorithms import Asgd
from asgd_lab.errors import ScenarioError
from asgd_lab.scenario import Document, Scenario, parse_assignment
from asgd_lab.scenario.tasks import Quadratic
from tests.scenario.bad_scenarios import edited


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def written(**lines: str) -> Document:
        path = tmp_path / "study.yaml"
        path.write_text(edited(**lines))
        return Document.read(path)

    return written


def refused(document: Document, overrides: dict[str, Any] | None = None) -> str:
    with pytest.raises(ScenarioError) as caught:
        document.points(overrides)
    return str(caught.value)


def test_a_scenario_has_its_defaults(write: Any) -> None:
    scenario = write(backend="", seed="", workers="").scenario()
    assert (scenario.seed, scenario.workers, scenario.record, scenario.sweep) == (0, 1, "all", {})
    assert (scenario.backend.name, scenario.backend.device) == ("process", "cpu")
    assert isinstance(scenario.task, Quadratic)
    assert (scenario.task.optimizer.name, scenario.task.optimizer.options) == ("SGD", {"lr": 0.1})
    assert scenario.warm_start is None
    assert scenario.hardware.link.bandwidth_bytes_per_s is None


@pytest.mark.parametrize(
    ("body", "rhythm", "rule", "push"),
    [
        ("name: asgd, n_sync: 10", (10, 10), ["scale"], "delta"),
        ("name: asgd, n_fetch: 2, n_push: 3", (2, 3), ["scale"], "delta"),
        ("name: ssp, n_sync: 4, bound: 0", (4, 4), ["scale"], "delta"),
        ("name: sync_sgd, n_sync: 5", (5, 5), ["mean"], "delta"),
        ("name: sgd", (1, 1), ["add"], "delta"),
        (
            "name: asgd, n_sync: 1, push: gradient, rule: [scale, {name: sgd, lr: 1}]",
            (1, 1),
            ["scale", "sgd"],
            "gradient",
        ),
    ],
)
def test_every_algorithm_has_the_same_attributes(
    write: Any, body: str, rhythm: tuple[int, int], rule: list[str], push: str
) -> None:
    algorithm = write(algorithm="algorithm: {" + body + "}", workers="").scenario().algorithm
    assert (algorithm.n_fetch, algorithm.n_push) == rhythm
    assert [link.name for link in algorithm.rule] == rule
    assert (algorithm.push, algorithm.momentum_at_fetch) == (push, "keep")


def test_n_sync_is_written_as_it_was_given(write: Any) -> None:
    text = Document.dump(write().scenario())
    assert "n_sync: 10\n" in text
    assert "n_fetch" not in text


def test_an_optimizer_keeps_every_other_keyword(write: Any) -> None:
    task = (
        "task: {name: quadratic, curvature: [1], optimizer: {name: Adam, lr: 1e-3, betas: [0.9, 0.99], amsgrad: true}}"
    )
    optimizer = write(task=task).scenario().task.optimizer
    assert optimizer.name == "Adam"
    assert optimizer.options == {"lr": 1e-3, "betas": [0.9, 0.99], "amsgrad": True}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        (".5", 0.5),
        (".5e3", 500.0),
        ("-.5E1", -5.0),
        ("1_000", 1000),
        ("010", 10),
        ("0x10", 16),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        ("'1e-3'", "1e-3"),
        ("nan", "nan"),
        ("[1, {a: b}]", [1, {"a": "b"}]),
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: object) -> None:
    key, read = parse_assignment(f"task.optimizer.x={text}")
    assert key == "task.optimizer.x"
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["workers", "=3", "a..b=3", ".a=3", "a.=3"])
def test_an_assignment_needs_a_key_and_a_value(text: str) -> None:
    with pytest.raises(ScenarioError, match=r"must be KEY=VALUE"):
        parse_assignment(text)


def test_an_assigned_value_that_is_no_yaml_is_one_line() -> None:
    with pytest.raises(ScenarioError, match=r"^--set workers: is not valid YAML: .*$"):
        parse_assignment("workers=[1, 2")


def test_an_alias_and_a_merge_bring_in_what_they_name(write: Any) -> None:
    scenario = write(
        hardware="hardware:\n  client: &cost {push_s: 1.0, fetch_s: 2.0}\n  server:\n    <<: *cost\n    fetch_s: 3.0"
    ).scenario()
    assert (scenario.hardware.server.push_s, scenario.hardware.server.fetch_s) == (1.0, 3.0)


def test_what_a_merge_brought_in_is_blamed_where_it_is_written(write: Any) -> None:
    document = write(hardware="hardware:\n  client: &cost\n    push_s: -1.0\n  server: {<<: *cost}\n  cores: 0")
    assert ":10: hardware.client.push_s: " in refused(document)
    document = write(hardware="hardware:\n  link: {}\n  server:\n    <<: {push_s: -1}\n    fetch_s: 1")
    assert ":11: hardware.server.push_s: " in refused(document)


@pytest.mark.parametrize(
    ("lines", "key", "value", "attribute", "expected"),
    [
        ({}, "workers", 5, "workers", 5),
        ({}, "algorithm.n_sync", 3, "algorithm.n_push", 3),
        ({}, "algorithm", {"name": "sync_sgd", "n_sync": 2}, "algorithm.name", "sync_sgd"),
        ({}, "backend", "process", "backend.name", "process"),
        ({}, "backend", {"name": "process", "device": "cuda"}, "backend.device", "cuda"),
        ({}, "backend.device", "cuda", "backend.device", "cuda"),
        ({"backend": ""}, "backend.device", "cuda", "backend.name", "process"),
        ({}, "task.optimizer.momentum", 0.9, "task.optimizer.options", {"lr": 0.1, "momentum": 0.9}),
        ({}, "hardware.link.latency_s", 0.5, "hardware.link.latency_s", 0.5),
        ({"hardware": "hardware:"}, "hardware.cores", 2, "hardware.cores", 2),
        ({}, "warm_start.minibatches", 7, "warm_start.minibatches", 7),
        ({"warm_start": "warm_start: {minibatches: 3}"}, "warm_start", None, "warm_start", None),
        ({}, "algorithm.rule.0.factor", 0.5, "algorithm.rule.0.factor", 0.5),
        (
            {"algorithm": "algorithm: {name: asgd, n_sync: 1, rule: [add, scale]}"},
            "algorithm.rule.1.factor",
            0.5,
            "algorithm.rule.1.factor",
            0.5,
        ),
        ({}, "task.curvature.1", 9.0, "task.curvature", [1.0, 9.0]),
    ],
)
def test_an_override_replaces_one_key(
    write: Any, lines: dict[str, str], key: str, value: Any, attribute: str, expected: Any
) -> None:
    document = write(**lines)
    before = copy.deepcopy(document)
    found: Any = document.scenario({key: value})
    for part in attribute.split("."):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    assert found == expected
    assert document == before


@pytest.mark.parametrize(
    ("overrides", "start"),
    [
        ({"workers": 0}, "--set workers: must be a whole number, at least 1"),
        ({"workrs": 2}, "--set workrs: unknown key; did you mean 'workers'?"),
        ({"algoritm.n_sync": 2}, "--set algoritm.n_sync: algoritm: unknown key; did you mean 'algorithm'?"),
        ({"algorithm.n_fetch": 2}, "--set algorithm.n_fetch: cannot stand beside n_sync"),
        (
            {"algorithm": {"name": "asgd", "nsync": 1}},
            "--set algorithm: algorithm.nsync: unknown key; did you mean 'n_sync'?",
        ),
        ({"backend": "simm"}, "--set backend: must be 'inline', 'sim' or 'process'; got 'simm'"),
        ({"backend": "sim"}, "--set backend: 'sim' needs the time of a minibatch"),
        ({"evaluate.parameters": ["server"]}, "--set evaluate.parameters: evaluate: give exactly one of"),
        ({"workers.count": 2}, "--set workers.count: cannot be set: there is no 'count' in 2"),
        ({"task.curvature.7": 2.0}, "--set task.curvature.7: the list has no item 7; it has 2"),
        ({"task.curvature.x": 2.0}, "--set task.curvature.x: cannot be set"),
        ({"budget.0.x": 2}, "--set budget.0.x: budget.0: unknown key; allowed here: minibatches"),
        ({"task.curvature.00": 2}, "--set task.curvature.00: cannot be set"),
        ({"sweep.workers": [0]}, "--set sweep.workers: at workers=0: must be a whole number"),
        ({"sweep.wrkers": [1]}, "--set sweep.wrkers: unknown key; did you mean 'workers'?"),
        ({"sweep": 3}, "--set sweep: must be a mapping; got 3"),
    ],
)
def test_an_error_in_an_override_names_it_in_place_of_file_and_line(
    write: Any, overrides: dict[str, Any], start: str
) -> None:
    message = refused(write(), overrides)
    assert message.startswith(start)
    assert "\n" not in message


def test_all_errors_are_told_those_of_overrides_first(write: Any) -> None:
    message = refused(write(budget="budget: {minibatches: 0}"), {"workers": 0, "seed": -1})
    starts = [line.partition(": must be")[0] for line in message.splitlines()]
    assert starts[:2] == ["--set workers", "--set seed"]
    assert starts[2].endswith(":6: budget.minibatches")


def test_an_error_in_the_file_names_the_file_though_there_are_overrides(write: Any) -> None:
    assert ":6: budget.minibatches: " in refused(write(budget="budget: {minibatches: 0}"), {"workers": 3})


def test_an_override_mends_what_is_wrong_in_the_file(write: Any) -> None:
    assert write(workers="workers: none").scenario({"workers": 3}).workers == 3


def test_a_file_without_a_sweep_has_one_nameless_point(write: Any) -> None:
    document = write()
    [point] = document.points()
    assert (point.name, point.values, point.scenario) == ("", {}, document.scenario())


def test_the_first_sweep_key_varies_slowest(write: Any) -> None:
    document = write(sweep="sweep: {algorithm.n_sync: [1, 10], workers: [2, 4]}")
    points = document.points()
    assert [point.name for point in points] == [
        "algorithm.n_sync=1,workers=2",
        "algorithm.n_sync=1,workers=4",
        "algorithm.n_sync=10,workers=2",
        "algorithm.n_sync=10,workers=4",
    ]
    assert [(point.scenario.algorithm.n_sync, point.scenario.workers) for point in points] == [
        (1, 2),
        (1, 4),
        (10, 2),
        (10, 4),
    ]
    assert points[2].values == {"algorithm.n_sync": 10, "workers": 2}
    assert all(point.scenario.sweep == {} for point in points)
    assert document.scenario().sweep == {"algorithm.n_sync": [1, 10], "workers": [2, 4]}


@pytest.mark.parametrize(
    ("sweep", "names"),
    [
        ("seed: [0, 1]", ["seed=0", "seed=1"]),
        ("task.optimizer.lr: [0.1, 1e-3]", ["task.optimizer.lr=0.1", "task.optimizer.lr=0.001"]),
        (
            "algorithm.rule: [[scale], [add, {name: momentum, beta: 0.9}]]",
            ["algorithm.rule=[scale]", "algorithm.rule=[add,momentum(beta=0.9)]"],
        ),
        (
            "algorithm: [{name: asgd, n_sync: 1}, {name: ssp, n_sync: 1, bound: 2}]",
            ["algorithm=asgd(n_sync=1)", "algorithm=ssp(n_sync=1,bound=2)"],
        ),
        (
            "algorithm: [{name: asgd, n_sync: 1}], algorithm.n_sync: [5]",
            ["algorithm=asgd(n_sync=1),algorithm.n_sync=5"],
        ),
        (
            "backend: [inline, process], backend.device: [cuda]",
            ["backend=inline,backend.device=cuda", "backend=process,backend.device=cuda"],
        ),
        ("backend.device: [cpu, cuda]", ["backend.device=cpu", "backend.device=cuda"]),
        ("hardware.cores: [null, 2]", ["hardware.cores=null", "hardware.cores=2"]),
        ("warm_start: [{run: a/b c}]", ["warm_start=(run=a_b_c)"]),
    ],
)
def test_a_sweep_may_take_any_key(write: Any, sweep: str, names: list[str]) -> None:
    points = write(sweep="sweep: {" + sweep + "}").points()
    assert [point.name for point in points] == names
    assert len({Document.dump(point.scenario) for point in points}) == len(points)


def test_a_sweep_may_bring_a_key_that_the_file_lacks(write: Any) -> None:
    document = write(algorithm="", sweep="sweep: {algorithm: [{name: asgd, n_sync: 2}]}")
    [point] = document.points()
    assert isinstance(point.scenario.algorithm, Asgd)


def test_what_is_overridden_is_not_swept(write: Any) -> None:
    document = write(sweep="sweep: {workers: [1, 2, 4], algorithm.n_sync: [1, 2]}")
    assert [point.name for point in document.points({"workers": 3})] == ["algorithm.n_sync=1", "algorithm.n_sync=2"]
    assert {point.scenario.workers for point in document.points({"workers": 3})} == {3}
    assert len(document.points({"algorithm": {"name": "asgd", "n_sync": 9}})) == 3
    assert [point.name for point in document.points({"sweep": {}})] == [""]


def test_an_override_inside_a_swept_mapping_holds_at_every_point(write: Any) -> None:
    document = write(sweep="sweep: {algorithm: [{name: asgd, n_sync: 1}, {name: sync_sgd, n_sync: 1}]}")
    assert [point.scenario.algorithm.n_sync for point in document.points({"algorithm.n_sync": 7})] == [7, 7]


def test_an_override_inside_a_swept_value_that_is_no_mapping_is_refused(write: Any) -> None:
    message = refused(write(sweep="sweep: {algorithm: [3]}"), {"algorithm.n_sync": 7})
    assert message.startswith("--set algorithm.n_sync: cannot be set: there is no 'n_sync' in 3")


def test_a_sweep_may_be_given_on_the_command_line(write: Any) -> None:
    points = write().points({"sweep.algorithm.n_sync": [1, 2]})
    assert [point.name for point in points] == ["algorithm.n_sync=1", "algorithm.n_sync=2"]


def test_points_do_not_share_what_they_hold(write: Any) -> None:
    first, second = write(sweep="sweep: {task.curvature: [[1.0], [2.0]], task.optimizer.lr: [0.1]}").points()
    assert first.scenario.task.curvature == [1.0]
    assert second.scenario.task.curvature == [2.0]
    again = write().scenario()
    assert again.task.optimizer.options == {"lr": 0.1}


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("task.optimizer.lr", 10),
        ("task.optimizer.nesterov", 8),
        ("task.model_options", 6),
        ("algorithm.rule.1.beta", 3),
        ("algorithm.rule.7", 3),
        ("warm_start.run", 1),
        ("sweep.task.optimizer.lr", 14),
        ("sweep.task.optimizer.lr.1", 16),
        ("sweep.task.optimizer", 13),
    ],
)
def test_a_later_error_is_located_at_the_nearest_key_of_the_file(tmp_path: Path, key: str, line: int) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: study\n"
        "workers: 2\n"
        "algorithm: {name: asgd, n_sync: 1, rule: [scale, {name: momentum, beta: 0.5}]}\n"
        "# what is learned\n"
        "\n"
        "task:\n"
        "  name: quadratic\n"
        "  optimizer:\n"
        "    name: SGD\n"
        "    lr: 0.1\n"
        "  curvature: [1.0]\n"
        "budget: {updates: 3}\n"
        "sweep:\n"
        "  task.optimizer.lr:\n"
        "  - 0.1\n"
        "  - 0.2\n"
    )
    document = Document.read(str(path))
    document.points()
    located = document.located(ScenarioError.at(key, "is no good; do better"))
    assert str(located) == f"{path}:{line}: {key}: is no good; do better"
    assert located.key == key
    assert str(document.located(located)) == str(located)
    assert str(document.located(located, {"workers": 3})) == str(located)


def test_a_later_error_in_an_overridden_key_is_located_at_the_override(write: Any) -> None:
    error = ScenarioError.at("task.optimizer.lr", "is no good")
    located = write().located(error, {"task.optimizer.lr": 3})
    assert str(located) == "--set task.optimizer.lr: is no good"


def test_an_error_about_no_key_is_left_as_it_is(write: Any) -> None:
    error = ScenarioError("--out: runs is not empty; choose another")
    assert write().located(error) is error


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + edited().encode())
    assert Document.read(path).scenario().name == "study"


def test_a_dump_is_plain_yaml_in_the_order_of_the_schema(write: Any) -> None:
    text = Document.dump(write(description="description: 'a: b'").scenario())
    assert text.startswith(
        "name: study\ndescription: 'a: b'\nseed: 3\ntask:\n  name: quadratic\n  curvature: [1.0, 4.0]\n"
    )
    assert [line.partition(":")[0] for line in text.splitlines() if line[0] not in " -"] == list(Scenario.model_fields)
