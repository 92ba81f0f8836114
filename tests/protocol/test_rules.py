"""Server rules: against hand numbers, against torch.optim, against their own promises, and against recorded bits."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from asgd_lab.algorithms import Asgd, Link, Ssp, SyncSgd
from asgd_lab.algorithms.rules import chained, contradictions
from asgd_lab.errors import ScenarioError
from asgd_lab.protocol import rules
from asgd_lab.protocol.parameters import Parameters
from asgd_lab.protocol.rules import Rule, Workspace
from tests.golden import make as golden
from tests.protocol.toys import Unwritten, merging, pushed

NAN = float("nan")


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)


def trajectory(rule: Rule, start: float, *updates: float) -> list[float]:
    """The parameter after each version, of one parameter and one push a version."""
    made, _ = golden.run(rule, vector(start), [[vector(update)] for update in updates])
    return [parameters.item() for parameters in made]


# ---------------------------------------------------------------- (a) hand numbers


def test_add_adds_whole_deltas() -> None:
    assert trajectory(rules.add(), 1.0, 0.5, -2.0) == [1.5, -0.5]


def test_scale_adds_a_part_of_each_delta() -> None:
    assert trajectory(rules.scale(0.25), 1.0, 2.0, -4.0) == [1.5, 0.5]


def test_mean_averages_the_pushes_of_a_round() -> None:
    made, _ = golden.run(rules.mean(), vector(1.0), [[vector(1.0), vector(2.0), vector(6.0)]])
    assert made[0].item() == 4.0  # 1 + (1 + 2 + 6) / 3


def test_the_mean_over_a_round_of_one_is_that_push() -> None:
    """An identity."""
    assert trajectory(rules.mean(), 1.0, 0.5, -2.0) == trajectory(rules.add(), 1.0, 0.5, -2.0)


def test_sgd_descends_along_the_gradient() -> None:
    assert trajectory(rules.sgd(0.5), 1.0, 2.0, -1.0) == [0.0, 0.5]


def test_momentum_adds_a_decaying_sum() -> None:
    # v = 1; 0.5*1 + 2 = 2.5; 0.5*2.5 - 1 = 0.25
    assert trajectory(rules.momentum(0.5), 0.0, 1.0, 2.0, -1.0) == [1.0, 3.5, 3.75]


def test_nesterov_momentum_looks_one_step_ahead() -> None:
    # v = 1, 2.5, 0.25 as above; the steps are u + 0.5*v = 1.5, 3.25, -0.875
    assert trajectory(rules.momentum(0.5, nesterov=True), 0.0, 1.0, 2.0, -1.0) == [1.5, 4.75, 3.875]


def test_adagrad_divides_by_the_root_of_the_sum_of_squares() -> None:
    """Duchi et al. 2011, with the epsilon outside the root: s = 9, 25; steps 3/3 and 4/5, times lr 0.5."""
    assert trajectory(rules.adagrad(0.5, eps=1e-10), 0.0, 3.0, 4.0) == pytest.approx([-0.5, -0.9], rel=1e-6)
    assert trajectory(rules.adagrad(1.0, eps=1.0), 0.0, 3.0) == [-0.75]


def test_adadelta_follows_zeilers_algorithm_1() -> None:
    """Zeiler 2012, Algorithm 1 with rho 0.5, eps 1.

    g = 2: E[g2] = 0.5*4 = 2, d = -sqrt(0 + 1)/sqrt(2 + 1)*2, E[d2] = 0.5*4/3 = 2/3;
    g = 1: E[g2] = 0.5*2 + 0.5 = 1.5, d = -sqrt(2/3 + 1)/sqrt(1.5 + 1)*1.
    """
    first, second = -2 / 3**0.5, -((5 / 3) ** 0.5) / 2.5**0.5
    assert trajectory(rules.adadelta(1.0, 0.5, 1.0), 0.0, 2.0, 1.0) == pytest.approx([first, first + second], rel=1e-6)
    assert trajectory(rules.adadelta(0.1, 0.5, 1.0), 0.0, 2.0) == pytest.approx([0.1 * first], rel=1e-6)


def test_a_chain_applies_its_links_in_the_order_they_are_written() -> None:
    # v = 0.5, 1.25 after scaling; the last link makes -2 of it.
    rule = rules.chain(rules.scale(0.5), rules.momentum(0.5), rules.sgd(2.0))
    assert trajectory(rule, 0.0, 1.0, 2.0) == [-1.0, -3.5]
    other = rules.chain(rules.scale(0.5), rules.adagrad(1.0), rules.scale(3.0))  # what is before adagrad cancels
    assert trajectory(other, 0.0, 3.0, 4.0) == pytest.approx([-3.0, -5.4], rel=1e-6)


# ---------------------------------------------------------------- (b) torch.optim


Make = Callable[[Tensor], torch.optim.Optimizer]
TORCH: dict[str, tuple[Rule, Make]] = {
    "SGD": (rules.sgd(0.1), lambda p: torch.optim.SGD([p], lr=0.1)),
    "SGD, momentum": (
        rules.chain(rules.momentum(0.9), rules.sgd(0.1)),
        lambda p: torch.optim.SGD([p], lr=0.1, momentum=0.9),
    ),
    "SGD, nesterov": (
        rules.chain(rules.momentum(0.9, nesterov=True), rules.sgd(0.1)),
        lambda p: torch.optim.SGD([p], lr=0.1, momentum=0.9, nesterov=True),
    ),
    "momentum on deltas": (
        rules.chain(rules.sgd(0.1), rules.momentum(0.9)),
        lambda p: torch.optim.SGD([p], lr=0.1, momentum=0.9),
    ),
    "Adagrad": (rules.adagrad(0.1), lambda p: torch.optim.Adagrad([p], lr=0.1)),
    "Adagrad, eps": (rules.adagrad(0.1, eps=0.5), lambda p: torch.optim.Adagrad([p], lr=0.1, eps=0.5)),
    "Adadelta": (rules.adadelta(), lambda p: torch.optim.Adadelta([p])),
    "Adadelta, all": (
        rules.adadelta(0.3, rho=0.7, eps=1e-3),
        lambda p: torch.optim.Adadelta([p], lr=0.3, rho=0.7, eps=1e-3),
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_a_rule_that_torch_optim_has_makes_the_same_twenty_steps(name: str) -> None:
    rule, make = TORCH[name]
    torch_generator = torch.Generator().manual_seed(2013)
    start, *gradients = torch.randn(21, 33, generator=torch_generator).unbind()
    made, _ = golden.run(rule, start, [[gradient] for gradient in gradients])
    theirs = start.clone()
    optimizer = make(theirs)
    for step, gradient in enumerate(gradients):
        theirs.grad = gradient.clone()
        optimizer.step()
        torch.testing.assert_close(made[step], theirs, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- (c) promises


SINGLE: dict[str, Rule] = {
    "add": rules.add(),
    "scale": rules.scale(0.3),
    "mean": rules.mean(),
    "sgd": rules.sgd(0.2),
    "momentum": rules.momentum(0.7),
    "nesterov": rules.momentum(0.7, nesterov=True),
    "adagrad": rules.adagrad(0.3, eps=1e-3),
    "adadelta": rules.adadelta(0.5, rho=0.8, eps=1e-2),
}
PASSES = ["scale", "momentum", "nesterov"]
# Well scaled, so that a tolerance can be stated: rules are compared with float64, and Adagrad divides by roots.
number = st.one_of(st.just(0.0), st.floats(0.125, 8, width=32), st.floats(-8, -0.125, width=32))


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[str], bool]:
    """Names of links that fit, and whether the round is collected."""
    collects = draw(st.booleans())
    names = ["mean"] if collects and draw(st.booleans()) else []
    names += draw(st.lists(st.sampled_from(PASSES), max_size=3))
    if draw(st.booleans()):
        names.append(draw(st.sampled_from(["sgd", "adagrad", "adadelta"])))
        names += draw(st.lists(st.sampled_from([*PASSES, "add"]), max_size=3))
    elif draw(st.booleans()) or not names:
        names.append("add")
    return names, collects


@st.composite
def rounds(draw: st.DrawFn, merged: int) -> list[list[Tensor]]:
    versions = draw(st.integers(1, 4))
    return [[vector(*draw(st.tuples(*[number] * 4))) for _ in range(merged)] for _ in range(versions)]


def one_after_the_other(names: Sequence[str], start: Tensor, versions: list[list[Tensor]]) -> list[Tensor]:
    """Every link as a rule by itself, on memory of its own, in float64, with each result made a vector at once."""
    current, states = start.double(), [[torch.zeros_like(start).double()] * SINGLE[name].states for name in names]
    made = []
    for pushes in versions:
        update = sum((push.double() for push in pushes), torch.zeros_like(current))
        for index, name in enumerate(names):
            workspace = Workspace()
            workspace.out = torch.full_like(current, NAN)
            fresh = [torch.full_like(current, NAN) for _ in states[index]]
            result, alpha = SINGLE[name].step((update, 1.0), merging(len(pushes)), states[index], fresh, workspace)
            update, states[index] = alpha * result, fresh
        current = current + update
        made.append(current)
    return made


@given(drawn=chains(), data=st.data(), merged=st.integers(1, 3))
@settings(max_examples=150)
def test_a_chain_is_its_links_applied_one_after_the_other(
    drawn: tuple[list[str], bool], data: st.DataObject, merged: int
) -> None:
    names, collects = drawn
    versions = data.draw(rounds(merged if collects else 1))
    start = vector(1.0, -2.0, 0.5, 3.0)
    made, _ = golden.run(rules.chain(*(SINGLE[name] for name in names)), start, versions)
    for ours, expected in zip(made, one_after_the_other(names, start, versions), strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("merged", [1, 2])
@pytest.mark.parametrize(
    "names",
    [
        ["nesterov", "adagrad"],  # each builds its step in the workspace, and reads what the one before it built there
        ["nesterov", "adadelta"],
        ["nesterov", "nesterov"],
        ["nesterov", "nesterov", "nesterov", "adagrad", "nesterov"],
        ["momentum", "adadelta", "nesterov"],
        ["adagrad", "nesterov"],
    ],
    ids=" > ".join,
)
def test_links_that_share_the_workspace_do_not_overwrite_one_another(names: list[str], merged: int) -> None:
    source = torch.Generator().manual_seed(7)
    versions = [list(torch.randn(merged, 5, generator=source).unbind()) for _ in range(5)]
    made, _ = golden.run(rules.chain(*(SINGLE[name] for name in names)), torch.zeros(5), versions)
    for ours, expected in zip(made, one_after_the_other(names, torch.zeros(5), versions), strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=2e-5, atol=2e-5)


@given(drawn=chains(), data=st.data(), merged=st.integers(1, 3))
@settings(max_examples=100)
def test_a_step_writes_neither_the_updates_nor_the_current_version_nor_the_old_state(
    drawn: tuple[list[str], bool], data: st.DataObject, merged: int
) -> None:
    names, collects = drawn
    versions = data.draw(rounds(merged if collects else 1))
    mailboxes = {worker: torch.empty(4) for worker in range(len(versions[0]))}
    rule = rules.chain(*(SINGLE[name] for name in names))
    parameters = Parameters(torch.ones(4), rule, mailboxes, Unwritten(torch.ones(4)))
    for pushes in versions:
        for worker, push in enumerate(pushes):
            mailboxes[worker].copy_(push)
        current, state = parameters.current, list(parameters.state)
        before = [tensor.clone() for tensor in (current, *state)]
        parameters.step([pushed(worker) for worker in sorted(mailboxes)])
        assert all(torch.equal(now, then) for now, then in zip((current, *state), before, strict=True))
        assert all(torch.equal(mailboxes[worker], push) for worker, push in enumerate(pushes))
        owned = [parameters.current, *parameters.state]
        assert not {t.data_ptr() for t in owned} & {t.data_ptr() for t in (current, *state, *mailboxes.values())}


@given(name=st.sampled_from(sorted(SINGLE)), update=st.tuples(*[number] * 4), alpha=st.floats(0.25, 4, width=32))
def test_a_link_stands_for_alpha_times_its_vector(name: str, update: tuple[float, ...], alpha: float) -> None:
    """A link fed the pair (u, alpha) yields what it yields of (alpha*u, 1), from memory that was all NaN."""

    def step(pair: tuple[Tensor, float]) -> Tensor:
        rule, workspace = SINGLE[name], Workspace()
        workspace.out = torch.full((4,), NAN)
        state, fresh = [[torch.full((4,), start) for _ in range(rule.states)] for start in (0.5, NAN)]
        result, factor = rule.step(pair, merging(2), state, fresh, workspace)
        assert all(tensor.isfinite().all() for tensor in fresh), "all of the new state is written"
        assert all((tensor == 0.5).all() for tensor in state)
        return torch.cat([result * factor, *fresh])

    u = vector(*update)
    torch.testing.assert_close(step((u, alpha)), step((u * alpha, 1.0)), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- what fits


REFUSED = [
    ([rules.sgd(1.0), rules.adagrad(1.0)], "adagrad eats a gradient, but sgd yields a delta"),
    ([rules.add(), rules.sgd(1.0)], "sgd eats a gradient, but add yields a delta"),
    ([rules.add(), rules.scale(1.0), rules.adadelta()], "adadelta eats a gradient"),
    ([rules.scale(1.0), rules.mean()], "mean must be the first link"),
    ([rules.mean(), rules.mean()], "mean must be the first link"),
]


@pytest.mark.parametrize(("links", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_chain_refuses_links_that_do_not_fit(links: list[Rule], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        rules.chain(*links)


def test_an_algorithm_refuses_a_rule_that_its_pushes_do_not_fit() -> None:
    asgd, ssp = Asgd(name="asgd", n_sync=1), Ssp(name="ssp", n_sync=1, bound=1)
    to_server = {"rule": [{"name": "sgd", "lr": 0.1}], "push": "gradient"}
    with pytest.raises(ScenarioError, match="sgd eats a gradient, but the workers push a delta"):
        asgd.sentence(rules.sgd(0.1))
    with pytest.raises(ScenarioError, match="add eats a delta, but the workers push a gradient"):
        Ssp.model_validate({"name": "ssp", "n_sync": 1, "bound": 1, **to_server}).sentence(rules.add())
    with pytest.raises(ScenarioError, match="momentum yields a gradient"):
        Asgd.model_validate({"name": "asgd", "n_fetch": 1, "n_push": 2, **to_server}).sentence(rules.momentum(0.9))
    with pytest.raises(ScenarioError, match="mean averages a collected round"):
        asgd.sentence(rules.mean())
    with pytest.raises(ScenarioError, match="mean averages a collected round"):
        ssp.sentence(rules.chain(rules.mean(), rules.add()))
    together = SyncSgd.model_validate({"name": "sync_sgd", "n_sync": 1, **to_server})
    assert together.sentence(rules.chain(rules.mean(), rules.sgd(0.1))).rule.name == "mean > sgd"


LINKS = [
    {"name": "add"},
    {"name": "mean"},
    {"name": "scale", "factor": 0.5},
    {"name": "momentum", "beta": 0.9},
    {"name": "momentum", "beta": 0.9, "nesterov": True},
    {"name": "sgd", "lr": 0.1},
    {"name": "adagrad", "lr": 0.1},
    {"name": "adadelta"},
]


@pytest.mark.parametrize("push", ["delta", "gradient"])
@pytest.mark.parametrize("collects", [False, True], ids=["asgd", "sync_sgd"])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_scenario_and_the_protocol_refuse_the_same_chains(length: int, collects: bool, push: str) -> None:
    """The scenario's table needs no torch and the protocol needs no scenario, so the two say it twice: they agree."""
    accepted = 0
    for chosen in itertools.product(_parsed_links(), repeat=length):
        refused_by_the_scenario = bool(list(contradictions(chosen, push, collects=collects)))
        try:
            rules.check(chained(chosen, workers=4), push, collects)
            refused_by_the_protocol = False
        except ScenarioError:
            refused_by_the_protocol = True
        assert refused_by_the_scenario == refused_by_the_protocol, [link.name for link in chosen]
        accepted += not refused_by_the_protocol
    assert accepted


def _parsed_links() -> list[Link]:
    """Every link as a scenario holds it: a sync_sgd over gradients takes each of them somewhere."""
    parsed: list[Link] = []
    for link in LINKS:
        push = "gradient" if link["name"] in ("sgd", "adagrad", "adadelta") else "delta"
        parsed += SyncSgd.model_validate({"name": "sync_sgd", "n_sync": 1, "rule": [link], "push": push}).rule
    return parsed


def test_scale_without_a_factor_divides_by_the_configured_workers() -> None:
    (link,) = Asgd.model_validate({"name": "asgd", "n_sync": 1, "rule": ["scale"]}).rule
    assert trajectory(chained([link], workers=4), 0.0, 2.0) == [0.5]


# ---------------------------------------------------------------- golden files


@pytest.mark.parametrize("name", golden.CASES)
def test_a_rule_still_makes_the_recorded_numbers(name: str) -> None:
    """To 4 units in the last place, the freedom of fused multiply-adds; remade by `python -m tests.golden.make`."""
    recorded = json.loads((golden.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    rule, _ = golden.CASES[name]
    assert recorded["rule"] == rule.name
    versions = [[golden.decode(push) for push in version] for version in recorded["pushes"]]
    start = golden.decode(recorded["start"])
    made, state = golden.run(rule, start, versions)
    # An ulp of the larger of what was added: the sum of a parameter and a step may cancel.
    floor = np.spacing(start.abs().numpy().max() + 1, dtype=np.float32)
    for ours, theirs in zip([*made, *state], [*recorded["parameters"], *recorded["state"]], strict=True):
        expected = golden.decode(theirs).numpy()
        ulp = np.maximum(np.spacing(np.abs(expected)), floor)
        assert (np.abs(ours.numpy() - expected) <= 4 * ulp).all(), name


def test_every_golden_file_belongs_to_a_rule() -> None:
    assert {path.stem for path in Path(golden.FOLDER).glob("*.json")} == set(golden.CASES)
