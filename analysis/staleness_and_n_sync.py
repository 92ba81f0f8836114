# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How stale, and how much `n_sync`?
#
# Two questions that everybody who trains asynchronously has to answer, put to the simulator where theory knows the
# answer: what is the distribution of staleness, and after how many local minibatches should a worker synchronise? All
# is in virtual time, so that the numbers are the same on every machine of a kind; they are about a model of hardware,
# and about a bowl instead of a network.

# %%
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from IPython.display import Image, display

import asgd_lab
from asgd_lab.figures import style
from asgd_lab.figures.curves import staleness_histogram
from asgd_lab.record import tables
from asgd_lab.record.directory_names import file_name
from asgd_lab.scenario import Document

torch.set_num_threads(1)
pd.set_option("display.precision", 3, "display.width", 120)

# %% tags=["parameters"]
SEEDS = (0, 1, 2)
UPDATES = 20_000  # versions of each run on staleness
WORKERS = (2, 8, 32)
N_SYNC = (1, 3, 10, 30, 100, 300, 900)
SECONDS = 150.0  # virtual, of each run on n_sync
TARGET = 1e-5  # of the loss, which starts at 0.555

# %%
out = Path(tempfile.mkdtemp(prefix="asgd-lab-"))


def run(scenario: str, **changes: Any) -> tuple[dict[str, Any], Path]:
    """The summary and the directory of one run; changes are scenario keys with __ for the dot."""
    overrides = {key.replace("__", "."): value for key, value in changes.items()}
    found = asgd_lab.run(scenario, overrides, out=out / file_name(f"{scenario} {overrides}"))
    return found.summary, found.path


# %% [markdown]
# ## The mean is workers − 1
#
# Staleness counts the versions that were made between the fetch of the parameters that a push started from and its
# own application. In `how-stale.yaml` a worker reads at the very moment of its own apply. So all M workers are always
# somewhere between a read and an apply, and each version is missed by exactly the M − 1 others, whatever the
# distribution of compute times. The variance is another matter: 0 if times are constant; M(M − 1) if they are
# exponential, because then every worker is equally likely to be the next, and the staleness is geometric, P(k) =
# (1/M)(1 − 1/M)^k.
#
# A row below is several runs with different seeds, and `se` the standard error of the mean over them. The thousands
# of pushes of one run are no substitute: they follow one another and are far from independent.

# %%
kinds = ("constant", "lognormal", "exponential")
shares: dict[tuple[str, int], pd.Series] = {}
last: dict[tuple[str, int], Path] = {}
rows = []
for kind in kinds:
    for workers in WORKERS:
        counts, means = [], []
        for seed in SEEDS:
            changes = {"hardware__compute__distribution": kind, "workers": workers, "seed": seed}
            summary, last[kind, workers] = run("how-stale", budget__updates=UPDATES, **changes)
            counts.append(pd.Series(summary["staleness"]["histogram"], dtype=float))
            means.append(summary["staleness"]["mean"])
        total = pd.concat(counts, axis=1).fillna(0).sum(axis=1)
        total.index = total.index.astype(int)
        share = shares[kind, workers] = total.sort_index() / total.sum()
        k = share.index.to_numpy()
        rows.append(
            {
                "compute": kind,
                "workers": workers,
                "mean": np.mean(means),
                "se": np.std(means, ddof=1) / len(means) ** 0.5 if len(means) > 1 else np.nan,
                "variance": (share * k**2).sum() - (share * k).sum() ** 2,
                "exponential: M(M - 1)": workers * (workers - 1),
                "most frequent": share.idxmax(),
                "largest": k.max(),
            }
        )
pd.DataFrame(rows)

# %% [markdown]
# The mean falls short of M − 1 by very little, and for a known reason: the first pushes of a run find no history,
# which costs about M(M − 1)/2 versions once. The variance is what irregular workers bring, and the largest staleness
# what a convergence proof with a bounded delay has to pay for.

# %%
M = 8 if 8 in WORKERS else max(WORKERS)
Image(str(style.save(staleness_histogram({kind: last[kind, M] for kind in kinds}), out / "kinds")[0]))

# %% [markdown]
# Same mean, three laws. Constant times make the workers take turns for ever. For exponential times, the geometric law
# beside what was simulated, on a logarithmic axis, where it is a straight line. In the far tail a share is a handful
# of pushes, so what scatters there is chance.

# %%
with style.look():
    fig, (axes,) = style.panels(style.COLUMN_IN, 2.6)
    for workers, color in zip(WORKERS, style.palette(len(WORKERS)), strict=True):
        share = shares["exponential", workers]
        k = np.arange(share.index.max() + 1)
        axes.semilogy(share.index, share, "o", markersize=2.5, color=color, label=f"{workers} workers")
        axes.semilogy(k, (1 / workers) * (1 - 1 / workers) ** k, color=color, linewidth=0.9)
    axes.set(xlabel="staleness (versions)", ylabel="share of pushes", xlim=(-2, 6 * max(WORKERS)), ylim=(1e-5, 1.3))
    axes.set_title("Exponential workers: staleness is geometric")
    axes.legend(loc="upper right", title="points simulated, lines theory")
Image(str(style.save(fig, out / "geometric")[0]))

# %% [markdown]
# What lowers the mean is a gap between a worker's apply and its next read: versions that others make meanwhile are
# not missed. With a link of latency L the gap is 2 L (the push's answer on its way back, the fetch on its way out) of
# a round that takes C. Whenever one worker's push is applied, each of the other M − 1 is between its own read and
# apply with probability 1 − 2L/C, if it is independent of the first, and misses this version if it is. So the mean is
# (M − 1)(1 − 2L/C), less what the start costs. (Workers that queue together are not independent: in a convoy the mean
# is far below this.)

# %%
rows = []
for latency_s in (0.0, 0.001, 0.005):
    changes = {"hardware__link__latency_s": latency_s, "hardware__compute__distribution": "lognormal"}
    summary, _ = run("how-stale", budget__updates=UPDATES, workers=M, **changes)
    round_s = M * summary["makespan_s"] / summary["updates"]
    law = (M - 1) * (1 - 2 * latency_s / round_s)
    rows.append({"latency_s": latency_s, "round_s": round_s, "mean": summary["staleness"]["mean"], "law": law})
pd.DataFrame(rows)

# %% [markdown]
# ## How much `n_sync`
#
# `how-much-n_sync.yaml` gives each `n_sync` the same virtual time, as Paine et al. (2013) gave each 24 hours. Eight
# workers learn a bowl with curvatures 1, 0.1 and 0.01; the server adds an eighth of each push; a minibatch takes 10
# ms, a push and a fetch cost the worker 20 ms each, and a push occupies the server for 20 ms.
#
# Loss at one moment would be a bad measure: late pushes make it ring, and where the last evaluation falls is luck. So
# what is taken is the time from which the loss stays below the target for good, and how many minibatches were learned
# by then. For the reverse question, the loss at equal minibatches, it is the largest loss in a window.
#
# Theory needs no simulation. The workers are nearly regular and take turns, so push t starts from version t − 7 and
# moves each coordinate by a = (1 − (1 − lr h)^n)/8 of it: w ← w − a w(7 versions ago). Versions come at a rate of
# min(8/(Z + S), 1/S), Z being a worker's own part of the round and S the server's. That is all: no noise, and the
# start as regular as the rest.

# %%
(point,) = Document.read("how-much-n_sync").points({"algorithm.n_sync": 1})
config = point.scenario
task, hardware, M = config.task, config.hardware, config.workers
curvature, lr = np.array(task.curvature), task.optimizer.options["lr"]
WINDOW = (5400, 7200)  # minibatches over all workers; 7,200 is one round of n_sync = 900


def theory(n: int) -> tuple[float, float]:
    """Seconds and minibatches until the loss stays below the target."""
    own_s = n * hardware.compute.step_s + hardware.client.push_s + hardware.client.fetch_s
    own_s += 4 * hardware.link.latency_s
    rate = min(M / (own_s + hardware.server.push_s), 1 / hardware.server.push_s)
    a = (1 - (1 - lr * curvature) ** n) / M
    versions = [np.full(curvature.shape, task.start)]
    above = 0
    while len(versions) < above + 40 * M or len(versions) < 100:  # until it has been below for long
        versions.append(versions[-1] - a * versions[max(0, len(versions) - M)])
        if 0.5 * np.sum(curvature * versions[-1] ** 2) > TARGET:
            above = len(versions)
    return above / rate, above * n


def reached(path: Path) -> tuple[float, float, float]:
    """Seconds and minibatches until the loss stays below the target (nan if it never does), and the window's loss."""
    evals = tables.read(path, "evals").sort_values("version")
    above = evals["value"].to_numpy() > TARGET
    first = len(above) - int(np.argmax(above[::-1])) if above.any() else 0
    window = evals[evals["minibatches"].between(*WINDOW)]["value"].max()
    if first == len(above):
        return np.nan, np.nan, window
    return evals["time_s"].iloc[first], evals["minibatches"].iloc[first], window


rows = []
for n in N_SYNC:
    for seed in SEEDS:
        summary, path = run("how-much-n_sync", algorithm__n_sync=n, seed=seed, budget__seconds=SECONDS)
        seconds, minibatches, window = reached(path)
        rows.append(
            {
                "n_sync": n,
                "seed": seed,
                "seconds": seconds,
                "minibatches": minibatches,
                "loss at equal minibatches": window,
                "server": summary["utilisation"]["server"],
                "devices": summary["utilisation"]["workers"],
            }
        )
runs = pd.DataFrame(rows)
result = runs.drop(columns="seed").groupby("n_sync").mean()
result.insert(1, "seconds, theory", [theory(n)[0] for n in result.index])
display(result)

# %%
ns = np.unique(np.geomspace(min(N_SYNC), max(N_SYNC), 60).round().astype(int))
expected = np.array([theory(n) for n in ns])
best = int(ns[expected[:, 0].argmin()])
with style.look():
    fig, (left, right) = style.panels(style.PAGE_IN, 2.7, columns=2)
    colors = style.palette(2)
    for axes, column, values in ((left, "seconds", expected[:, 0]), (right, "minibatches", expected[:, 1])):
        axes.loglog(ns, values, color=colors[0], label="theory")
        axes.loglog(runs["n_sync"], runs[column], "o", color=colors[1], label="simulated, a point a seed")
        axes.set_xlabel("n_sync (minibatches)")
        axes.set_xticks(N_SYNC, labels=[str(n) for n in N_SYNC])
        axes.minorticks_off()
    left.axvline(best, color=style.REFERENCE, linestyle=":")
    left.set(ylabel="virtual seconds to the target", title=f"In time the best n_sync is about {best}")
    right.set(ylabel="minibatches to the target", title="In minibatches large n_sync only loses")
    right.legend(loc="upper left")
Image(str(style.save(fig, out / "n_sync")[0]))

# %% [markdown]
# The two panels are the two costs of Paine et al.'s trade-off.
#
# *Left branch.* The server passes at most 1/S pushes a second whatever they carry, so three times `n_sync` is three
# times as fast, and nothing is lost in minibatches: the slow direction, with lr h = 0.005, does not see how its steps
# are bundled. It needs ln(0.005/1e-5)/2 ≈ 3.1 of its time constants of 8/0.005 minibatches, about 5,000, so 5,000/n
# pushes. This branch ends where the server is no longer saturated, at n = (7 S − costs)/step, here about ten; from
# there on more `n_sync` only saves the rest of the costs.
#
# *Right branch.* The fast directions have long arrived: a push carries the whole way to the replica's own minimum,
# and steps beyond are wasted. An eighth of that is too much for parameters which are seven versions old: decay is
# fastest at a = 7^7/8^8 ≈ 0.049, larger a overshoot and ring, and a = 1/8 damps by 4.8% a push. That takes about 110
# *pushes* from 0.5 to 1e-5, however many minibatches each is made of.
#
# The best `n_sync` is where the slow direction needs no more pushes than the ringing of the fast ones: 5,000/n = 110,
# so n = 45, if the server is out of the way by then. It is the ratio of the curvatures and the learning rate that set
# it on the right, and costs, server and the number of workers on the left. That is why it cannot be copied from one
# machine, or from one network, to another. Where the simulation is a little later than theory, up to n = 30, it is
# the gradients' noise, which theory leaves out: it keeps the loss from settling so close to its own floor.
#
# ## What this does not show
#
# - The bowl has one minimum and three directions. In a network replicas that drift apart for long can also end in
#   places whose average is worse than each: that makes the right branch steeper. It is not in this theory.
# - The seeds change the gradients' noise and the compute times, and no more. How far apart the points of an `n_sync`
#   lie is that noise near the target; three of them hint at it, and no interval is drawn from three.
# - Nothing was tuned an `n_sync` at a time. With a learning rate chosen anew for each, the right branch is less
#   steep.
# - At n_sync = 900 a run is sixteen rounds long, and its pushes come in bursts of eight.
