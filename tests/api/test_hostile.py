"""A notebook's user at their worst: wrong types everywhere, objects that change, records that are none, odd names."""

from __future__ import annotations

import copy
import enum
import json
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest

import asgd_lab
from asgd_lab.backends.outcome import Progress
from asgd_lab.request import Request
from tests.api.scenarios import BOWL, DIGITS, on
from tests.api.test_validation import EMULATED, TIMING
from tests.whole import sample

ODD = "<script>alert(1)</script>&'$\\frac$_"  # a slash cannot be in a folder's name
ODD_NAME = ODD.replace("/", "|").replace("\\", "|")


def raises(call: Callable[[], object]) -> str:
    """The error of a call, which must be of our own, and one line."""
    with pytest.raises(asgd_lab.ScenarioError) as raised:
        call()
    assert len(raised.value.args) >= 1
    assert all("\n" not in line and 0 < len(line) <= 1000 and "--" not in line for line in raised.value.args)
    return str(raised.value)


class Odd:
    """It has no plain form, and its own text raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    __str__ = __repr__


class Nowhere(os.PathLike[str]):
    def __fspath__(self) -> str:
        raise OSError("nowhere")


class Number(enum.Enum):
    ONE = 1


WRONG: list[Any] = [
    5, -1, 1.5, float("nan"), True, "", "x\0y", b"x", [], [1], {}, {"a": {1}}, (), {1}, object(), Odd(), Nowhere(), int,
    print, lambda: 1, (each for each in [1]), Number.ONE, Decimal(2), 1j, np.float64(2.5), np.array([1, 2]),
    np.datetime64("2020-01-01"), pd.Timestamp("2020-01-01"), pd.NA, pd.DataFrame({"a": [1]}), Exception("x"), 10**5000,
    ..., NotImplemented, memoryview(b"x"), json, threading.Lock(),
]  # fmt: skip


# ---------------------------------------------------------------- values of a scenario


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from leaves(each, (*path, key))


FULL: dict[str, Any] = {
    **DIGITS,
    "sweep": {"algorithm.n_sync": [1, 2]},
    "warm_start": {"minibatches": 5},
    "faults": {"schedule": [{"name": "kill", "worker": 1, "at_s": 0.01}]},
}
PLACES = [(path, number) for path in leaves(FULL) for number in range(len(WRONG))]


def replaced(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    found = copy.deepcopy(FULL)
    parent: Any = found
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return found


def test_a_wrong_value_at_any_key_is_one_line_with_its_subscripts_or_is_valid() -> None:
    valid = 0
    for path, number in sample(PLACES, 150):
        scenario = replaced(path, WRONG[number])
        try:
            Request.of(scenario)
        except asgd_lab.ScenarioError as error:
            for line in error.args:
                assert line.startswith("scenario"), (path, line)
                assert "\n" not in line
        else:
            valid += 1
    assert valid < 0.3 * len(PLACES)


def test_a_wrong_change_of_any_key_is_one_line_with_its_key_or_is_valid() -> None:
    for path, number in sample(PLACES, 100):
        if not any("." in str(part) for part in path):
            try:
                Request.of(FULL, {".".join(map(str, path)): WRONG[number]})
            except asgd_lab.ScenarioError as error:
                for line in error.args:
                    assert line.startswith(("changes[", "scenario["))
                    assert "\n" not in line


CONVERTED: dict[str, tuple[Any, Any]] = {
    "a series": (pd.Series([1, 2]), [1, 2]),
    "an index": (pd.Index([1, 2]), [1, 2]),
    "a column of a frame": (pd.DataFrame({"workers": [1, 2]})["workers"], [1, 2]),
    "keys of a dict": (list({1: 0, 2: 0}), [1, 2]),
    "text of numpy": ([np.int8(1), np.uint64(2)], [1, 2]),
}


@pytest.mark.parametrize("kind", CONVERTED)
def test_values_of_a_sweep_may_come_from_a_table(kind: str) -> None:
    given, plain = CONVERTED[kind]
    assert [point.values["workers"] for point in Request.of(BOWL, {"sweep": {"workers": given}}).points] == plain


def test_any_mapping_is_a_scenario() -> None:
    scenario = MappingProxyType({**BOWL, "algorithm": MappingProxyType(BOWL["algorithm"])})
    assert len(Request.of(scenario).points) == 1


def test_a_scenario_that_is_changed_after_its_run_changes_nothing_of_the_record(tmp_path: Path) -> None:
    given = copy.deepcopy(BOWL)
    made = asgd_lab.Scenario.model_validate(BOWL)
    runs = [asgd_lab.run(each, out=tmp_path / str(number)) for number, each in enumerate((given, made))]
    before = [run.path.joinpath("scenario.yaml").read_bytes() for run in runs]
    given["task"]["curvature"].append(9.0)
    made.task.curvature.append(9.0)  # type: ignore[attr-defined]
    runs[0].scenario.task.curvature.clear()  # type: ignore[attr-defined]
    assert [run.path.joinpath("scenario.yaml").read_bytes() for run in runs] == before
    assert before[0] == before[1]
    assert asgd_lab.Run.open(runs[0].path).scenario.task.curvature == [1.0, 4.0]  # type: ignore[attr-defined]
    assert runs[0].replay().same_bits


# ---------------------------------------------------------------- arguments

ARGUMENTS: dict[str, Callable[[Any], object]] = {
    "scenario": lambda value: asgd_lab.run(value),
    "changes": lambda value: asgd_lab.validate(BOWL, value),
    "out": lambda value: asgd_lab.run(BOWL, out=value),
    "resume": lambda value: asgd_lab.run(BOWL, out="new", resume=value),
    "watch": lambda value: asgd_lab.run(BOWL, out="new", watch=value),
    "jobs": lambda value: asgd_lab.sweep(BOWL, {"sweep.seed": [1]}, out="new", jobs=value),
    "seeds": lambda value: asgd_lab.sweep(BOWL, out="new", seeds=value),
    "repeats": lambda value: asgd_lab.compare(BOWL, repeats=value),
    "say": lambda value: asgd_lab.compare(BOWL, say=value),
    "scenario of compare": lambda value: asgd_lab.compare(value),
    "scenario of calibrate": lambda value: asgd_lab.calibrate(value),
    "out of calibrate": lambda value: asgd_lab.calibrate(BOWL, out=value),
    "run": lambda value: asgd_lab.replay(value),
    "path of a run": lambda value: asgd_lab.Run.open(value),
    "path of a sweep": lambda value: asgd_lab.Sweep.open(value),
    "path of a comparison": lambda value: asgd_lab.Comparison.open(value),
    "preset": lambda value: asgd_lab.preset(value),
    "kind": lambda value: asgd_lab.available(value),
    "file": lambda value: asgd_lab.new(value),
    "source": lambda value: asgd_lab.new("new.yaml", value),
    "of": lambda value: asgd_lab.report(value),
    "second of": lambda value: asgd_lab.report("nowhere", value),
    "out of report": lambda value: asgd_lab.report("nowhere", out=value),
    "run of explain": lambda value: asgd_lab.explain(value),
    **{
        f"{name} of explain": lambda value, name=name: asgd_lab.explain("nowhere", **{name: value})
        for name in ("doses", "rates", "seeds", "causes", "rules_see", "metric", "out", "watch")
    },
}
FITTING: dict[str, tuple[Any, ...]] = {"jobs": (5,), "seeds": (5,), "resume": (True,)}


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_an_argument_of_a_wrong_type_is_one_line_and_nothing_is_begun(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fitting = FITTING.get(argument, ())
    for value in WRONG:
        fits = any(value is each for each in fitting) or (argument in ("watch", "say") and callable(value))
        fits |= argument == "changes" and isinstance(value, dict) and not value
        if not fits and not (argument in ("out", "out of calibrate") and isinstance(value, str) and value):
            raises(lambda value=value: ARGUMENTS[argument](value))  # type: ignore[misc]
    assert list(tmp_path.iterdir()) == []


def test_numbers_and_truth_of_numpy_are_arguments_too(tmp_path: Path) -> None:
    swept = asgd_lab.sweep(TIMING, out=tmp_path / "a", seeds=np.int64(2), jobs=np.uint8(1))  # type: ignore[arg-type]
    assert len(swept) == 2
    asgd_lab.run(TIMING, out=tmp_path / "b", resume=np.bool_(False))  # type: ignore[arg-type]


# ---------------------------------------------------------------- the same directory, watches that fail, interrupts


def test_a_directory_is_used_once_and_by_one_call_at_a_time(tmp_path: Path) -> None:
    asgd_lab.run(TIMING, out=tmp_path / "run")
    assert raises(lambda: asgd_lab.run(TIMING, out=tmp_path / "run")) == (
        f"out: {tmp_path / 'run'} is not empty; choose another"
    )
    said: list[str] = []

    def inside(progress: Progress) -> None:
        if not said:
            for call in (asgd_lab.run, asgd_lab.sweep):
                thread = threading.Thread(
                    target=lambda call=call: said.append(raises(lambda: call(TIMING, seeded(call), out=tmp_path / "x")))  # type: ignore[misc]
                )
                thread.start()
                thread.join()

    asgd_lab.run(LONG, out=tmp_path / "x", watch=inside)
    assert (
        said == [f"out: {tmp_path / 'x'} is in use; the run in it is still going on; wait for its end, or end it"] * 2
    )


def seeded(call: object) -> dict[str, Any]:
    return {"sweep": {"seed": [1, 2]}} if call is asgd_lab.sweep else {}


LONG: dict[str, Any] = {**TIMING, "budget": {"minibatches": 40_000}, "record": "summary"}


@pytest.mark.xdist_group("process")
@pytest.mark.parametrize("how", ["sim", "process", "sweep", "sweep in processes"])
def test_a_watch_that_fails_ends_the_run_and_its_own_error_is_raised(tmp_path: Path, how: str) -> None:
    def fail(*told: Any) -> None:
        raise ZeroDivisionError("of the watch")

    backend: Any = {"backend": EMULATED, "budget": {"seconds": 60}} if how == "process" else {}
    swept, jobs = {"sweep": {"seed": [1, 2, 3]}}, 1 if how == "sweep" else 2
    calls: dict[bool, Callable[[], object]] = {
        True: lambda: asgd_lab.sweep(LONG, swept, out=tmp_path / "x", jobs=jobs, watch=fail),
        False: lambda: asgd_lab.run({**LONG, **backend}, out=tmp_path / "x", watch=fail),
    }
    with pytest.raises(ZeroDivisionError, match="of the watch"):
        calls[how.startswith("sweep")]()
    if how in ("sim", "process"):
        assert asgd_lab.Run.open(tmp_path / "x").status == "failed"


def test_an_interrupted_sweep_is_opened_and_continued(tmp_path: Path) -> None:
    def stop(name: str, progress: Progress) -> None:
        if name == "seed=2" and progress.seconds > 0:
            raise KeyboardInterrupt

    with pytest.raises(asgd_lab.Interrupted) as raised:
        asgd_lab.sweep(LONG, {"sweep": {"seed": [1, 2, 3]}}, out=tmp_path / "x", jobs=1, watch=stop)
    assert raised.value.run_dir == tmp_path / "x"
    assert "resume=True goes on with it" in str(raised.value)
    found = asgd_lab.Sweep.open(tmp_path / "x")
    assert found.failures == {
        "seed=2": f"was interrupted; what was recorded is in {tmp_path / 'x' / 'seed=2'}", "seed=3": "has not begun",
    }  # fmt: skip
    assert list(found.frame["seed"]) == [1]
    with pytest.raises(asgd_lab.RunFailed, match="was interrupted"):
        found["seed=2"]
    done = asgd_lab.sweep(LONG, {"sweep": {"seed": [1, 2, 3]}}, out=tmp_path / "x", jobs=1, resume=True)
    assert done.failures == asgd_lab.Sweep.open(tmp_path / "x").failures == {}


# ---------------------------------------------------------------- records that are none


def test_what_is_no_record_is_told_in_one_line(tmp_path: Path) -> None:
    run = asgd_lab.run(TIMING, out=tmp_path / "run")
    swept = asgd_lab.sweep(TIMING, {"sweep": {"seed": [1, 2]}}, out=tmp_path / "sweep", jobs=1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    for opened in (asgd_lab.Run.open, asgd_lab.Sweep.open, asgd_lab.Comparison.open, asgd_lab.replay):
        for name in ("empty", "file", "link", "nowhere", "file/inside", "a" * 300):
            raises(lambda name=name, opened=opened: opened(tmp_path / name))  # type: ignore[misc]
    assert "is the directory of a sweep; asgd_lab.Sweep.open opens it" in raises(lambda: asgd_lab.Run.open(swept.path))
    assert "is a run; asgd_lab.Run.open opens it" in raises(lambda: asgd_lab.Sweep.open(run.path))
    raises(lambda: asgd_lab.replay(swept.path))
    for damage in (
        "",
        "{",
        "[]",
        "{}",
        '{"points": []}',
        '{"points": [{"name": "../x"}]}',
        '{"points": 3, "crc32": 0}',
    ):
        (swept.path / "sweep.json").write_text(damage)
        raises(lambda: asgd_lab.Sweep.open(swept.path))
    for damage in (b"", b"PAR1", b"\0" * 100):
        (tmp_path / "empty" / "compare.parquet").write_bytes(damage)
        raises(lambda: asgd_lab.Comparison.open(tmp_path / "empty"))
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "empty" / "compare.parquet")
    assert "is not a comparison's" in raises(lambda: asgd_lab.Comparison.open(tmp_path / "empty"))


def test_a_run_whose_record_goes_away_still_shows_itself(tmp_path: Path) -> None:
    run = asgd_lab.run(TIMING, out=tmp_path / "run")
    run.path.rename(tmp_path / "elsewhere")
    assert repr(run) == f"<Run {tmp_path / 'run'}: is not a run directory; manifest.json is missing>"
    assert "is not a run directory" in run._repr_html_()
    raises(lambda: run.effects)


def test_a_run_that_is_still_running_is_opened_and_shown(tmp_path: Path) -> None:
    seen: list[str] = []

    def look(progress: Progress) -> None:
        run = asgd_lab.Run.open(tmp_path / "x")
        seen.append(f"{run!r} {run._repr_html_()} {raises(lambda: run.summary)}")

    asgd_lab.run(LONG, out=tmp_path / "x", watch=look)
    assert seen
    assert "running" in seen[0]


# ---------------------------------------------------------------- copies


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_every_object_of_the_interface_can_be_copied(tmp_path: Path, how: str) -> None:
    def again(value: Any) -> Any:
        return copy.deepcopy(value) if how == "deepcopy" else pickle.loads(pickle.dumps(value))

    run = asgd_lab.run(BOWL, out=tmp_path / "run")
    rows = len(run.effects)
    assert again(run) == run
    assert len(again(run).effects) == rows
    swept = asgd_lab.sweep(TIMING, {"sweep": {"workers": [1, 2]}}, out=tmp_path / "sweep", jobs=1)
    assert again(swept)["workers=2"] == swept[1]
    assert again(swept).frame.equals(swept.frame)
    for value in (run.replay(), asgd_lab.validate(BOWL), Progress(1.0, 2, 3, 4), asgd_lab.preset("laptop")):
        assert again(value) == value or repr(again(value)) == repr(value)
    failed = again(asgd_lab.RunFailed("it died", run_dir=tmp_path))
    assert (str(failed), failed.run_dir) == ("it died", tmp_path)
    wrong = again(asgd_lab.ScenarioError.at("a.b", "is wrong"))
    assert (str(wrong), wrong.key) == ("is wrong", "a.b")


# ---------------------------------------------------------------- words for a reader


def test_odd_names_are_shown_as_they_are_and_never_as_html(tmp_path: Path) -> None:
    odd = {**DIGITS, "name": ODD_NAME, "description": ODD}
    run = asgd_lab.run(odd, out=tmp_path / ODD_NAME)
    swept = asgd_lab.sweep(odd, {"sweep": {"description": [ODD, "_x$"]}}, out=tmp_path / "s", jobs=1)
    shown = [run._repr_html_(), run.replay()._repr_html_(), swept._repr_html_()]
    shown.append(asgd_lab.Sweep.open(swept.path)._repr_html_())
    shown.append(asgd_lab.Validation(ODD, [ODD], [ODD], [(ODD, ODD)])._repr_html_())
    for each in shown:
        assert "<script>" not in each
        assert "&lt;script&gt;" in each
    figures = [run.plot.curves(), run.plot.staleness(), swept.plot.curves(), swept.plot.staleness()]
    figures += [swept.plot.answer(name) for name in ("curves", "staleness", "where_time_goes", "final", "throughput")]
    for figure in figures:
        assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


# ---------------------------------------------------------------- figures of runs that lack what they show


def test_a_figure_of_a_run_without_what_it_shows_is_one_line(tmp_path: Path) -> None:
    timing = asgd_lab.run({**TIMING, "record": "summary"}, out=tmp_path / "timing")
    inline = asgd_lab.run(on("inline"), out=tmp_path / "inline")
    failed = asgd_lab.run(TIMING, out=tmp_path / "failed")
    (failed.path / "summary.json").unlink()
    for run in (timing, failed):
        raises(run.plot.timeline)
        raises(run.plot.curves)
    raises(inline.plot.where_time_goes)
    for plot in (failed.plot.staleness, failed.plot.where_time_goes):
        raises(plot)
    for wrong in ({"x": "seconds"}, {"metric": 5}, {"split": 5}, {"metric": "accuracy"}):
        raises(lambda wrong=wrong: inline.plot.curves(**wrong))  # type: ignore[misc]
    for span in ((2.0, 1.0), ("a", None), (None, "b"), (float("nan"), 1.0), (1e9, 2e9)):
        raises(lambda span=span: inline.plot.timeline(*span))  # type: ignore[misc]
    swept = asgd_lab.sweep(TIMING, {"sweep": {"seed": [1, 2]}}, out=tmp_path / "sweep", jobs=1)
    for figure in ("speedup", "curves", "to_target", "final", "nothing", 5, ["speedup"]):
        raises(lambda figure=figure: swept.plot.answer(figure))  # type: ignore[misc]
    raises(swept.plot.curves)


def test_a_point_that_is_not_there_is_a_key_or_an_index_error(tmp_path: Path) -> None:
    swept = asgd_lab.sweep(TIMING, {"sweep": {"workers": [1, 2]}}, out=tmp_path / "x", jobs=1)
    assert swept[np.int64(-1)] == swept[1] == swept[-1:][0]  # type: ignore[index]
    for key in ("nothing", {"workers": 3}, {"workers": True}, {"nothing": 1}, {}):
        with pytest.raises(KeyError, match="the points are workers=1, workers=2"):
            swept[key]  # type: ignore[index]
    for number in (2, -3):
        with pytest.raises(IndexError):
            swept[number]
    for wrong in (None, 1.0, True, ["workers"], object()):
        with pytest.raises(TypeError, match="a point is found by its name"):
            swept[wrong]  # type: ignore[index]
