"""A fit finds the costs that made the tables it is given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from asgd_lab.hardware.fit import MOST_SAMPLES, _cold_s, few, fit, step_times_s

Tables = tuple[pd.DataFrame, pd.DataFrame]


def rounds(n_sync: int, count: int, *, cold_s: float = 0.0) -> Tables:
    """One worker's tables, made by hand: latency 1 ms, apply 5, grant 2, measure 3, adopt 4, a minibatch 10."""
    effects, minibatches, now = [], [], 0.0

    def effect(worker: int, kind: str, start: float, took: float) -> float:
        effects.append((worker, kind, start, start + took, n_sync))
        return start + took

    for _ in range(count):
        effect(-1, "grant", now + 0.001, 0.002)
        now = effect(0, "fetch", now, 0.004)
        now = effect(0, "adopt", now, 0.004)
        ends = now + cold_s + 0.010 * np.arange(1, n_sync + 1)
        minibatches += [(0, end) for end in ends]
        now = effect(0, "train", now, cold_s + 0.010 * n_sync)
        now = effect(0, "measure", now, 0.003)
        effect(-1, "apply", now + 0.001, 0.005)
        now = effect(0, "push", now, 0.007)
    columns = ["worker", "kind", "start_s", "end_s", "steps"]
    return pd.DataFrame(effects, columns=columns), pd.DataFrame(minibatches, columns=["worker", "time_s"])


def test_the_costs_of_a_made_up_run_are_found_again() -> None:
    fitted = fit([rounds(1, 20), rounds(10, 5)])
    assert fitted.client_push_s == pytest.approx(0.003)
    assert fitted.client_fetch_s == pytest.approx(0.004)
    assert fitted.server_push_s == pytest.approx(0.005)
    assert fitted.server_fetch_s == pytest.approx(0.002)
    assert fitted.latency_s == pytest.approx(0.001)
    assert fitted.step_times_s == pytest.approx([0.010] * 45)


def test_what_only_the_first_minibatch_after_a_fetch_takes_is_a_cost_of_the_fetch() -> None:
    fitted = fit([rounds(1, 20, cold_s=0.006), rounds(10, 20, cold_s=0.006)])
    assert fitted.client_fetch_s == pytest.approx(0.004)
    assert fitted.cold_s == pytest.approx(0.006)
    assert np.mean(fitted.step_times_s) == pytest.approx(0.010)


def test_chance_is_no_cold_cache() -> None:
    random = np.random.default_rng(1)
    first, later = random.exponential(0.02, 40), random.exponential(0.02, 40)
    assert _cold_s(first, later) == 0.0
    assert _cold_s(first + 0.05, later) > 0.04


def test_rounds_of_one_minibatch_alone_still_give_step_times() -> None:
    fitted = fit([rounds(1, 20, cold_s=0.006)])
    assert fitted.step_times_s == pytest.approx([0.016] * 20)


def test_minibatches_of_several_workers_are_told_apart() -> None:
    effects, minibatches = rounds(5, 4)
    other = effects.assign(worker=effects["worker"].replace(0, 1)), minibatches.assign(worker=1)
    both = pd.concat([effects, other[0]]), pd.concat([minibatches, other[1]])
    assert step_times_s(*both) == pytest.approx([0.010] * 40)


def test_a_task_that_computes_nothing_gives_the_time_of_whole_trains() -> None:
    effects, minibatches = rounds(5, 4)
    assert fit([(effects, minibatches.iloc[:0])]).step_times_s == pytest.approx([0.010] * 4)


@pytest.mark.parametrize("count", [1, 3, MOST_SAMPLES, MOST_SAMPLES + 1, 3 * MOST_SAMPLES + 7, 400_000])
def test_many_step_times_are_held_by_few_with_the_same_mean_and_spread(count: int) -> None:
    samples = np.random.default_rng(1).lognormal(-6.0, 0.4, count)
    held = few(samples)
    assert len(held) == min(count, MOST_SAMPLES)
    assert held.mean() == pytest.approx(samples.mean(), rel=1e-3)
    assert held.std() == pytest.approx(samples.std(), rel=0.02)
    assert samples.min() <= held.min() <= held.max() <= samples.max()
