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
# # Simulated against measured
#
# A simulator that is tuned until it fits has shown nothing. Here the prediction is made first: one worker is measured
# for a few seconds, its costs go into the simulator, and every point of a sweep (how many workers, how much `n_sync`)
# is predicted from them before it is measured with real processes. What the simulator has never seen is exactly what
# is asked of it: how workers get into each other's way.
#
# This file is a notebook: Jupyter opens it with jupytext, and `jupytext --to ipynb` makes one of it.

# %%
import tempfile
from pathlib import Path

import pandas as pd
import torch
from IPython.display import display

import asgd_lab

torch.set_num_threads(1)
pd.set_option("display.precision", 3, "display.width", 120)

# %% tags=["parameters"]
COMPARED = None  # the directory that `asgd-lab compare ... --out DIR` wrote, such as "runs/demo"; None: measure here
SCENARIO = "does-the-server-saturate"
OVERRIDES = {"budget.seconds": 2, "algorithm.n_sync": 10}
REPEATS = 3

# %% [markdown]
# ## The table
#
# A row is a point of the sweep. Speed-up is throughput over that of a device which only computes, so that one worker
# already has less than 1: its own synchronisation counts. `measured_low` and `measured_high` are a 95% interval for
# the mean of the repeats, by Student's t. With three repeats t is 4.3, and such an interval is wide for a reason:
# three runs hardly say how much runs scatter.
#
# An emulated device computes the real mathematics and waits until the stated time is over. `overruns` is the share of
# minibatches for which that time was too short, because the machine had something else to do. From 1% on the point is
# not `valid`: what was measured there is the machine and not the scenario. Such points are shown, and counted apart.

# %%
out = Path(tempfile.mkdtemp(prefix="asgd-lab-"))
if COMPARED is None:
    compared = asgd_lab.compare(SCENARIO, OVERRIDES, out=out / "runs", repeats=REPEATS, say=print)
else:
    compared = asgd_lab.Comparison.open(COMPARED)
table = compared.frame
columns = ["group", "n_sync", "workers", "predicted", "measured_mean", "measured_low", "measured_high", "error"]
table[[*columns, "saturated", "overruns", "valid"]]

# %%
compared.plot.speedup()

# %% [markdown]
# Read the left panel first: the lines were there before the markers. The middle one shows the same points without the
# story, where a good prediction lies on the diagonal. The right one asks for more than throughput: a simulator can
# get the rate right with the wrong order of events, but hardly the staleness.
#
# ## How wrong is it, and is that worth anything?
#
# An error alone says little. Two rivals cost nothing: *ideal* multiplies the prediction for one worker by the number
# of workers, and *the bound* cuts that off where the server would be busy all the time, at the highest throughput
# that its utilisation at this `n_sync` allows. A simulator earns its keep only where it beats both, and that can only
# be where workers wait for one another.

# %%
by = ["scenario", "group", "n_sync"]
alone = table[table["workers"] == 1][[*by, "predicted", "server_utilisation"]]
joined = table.merge(alone, on=by, suffixes=("", "_alone"))
predictions = pd.DataFrame(
    {
        "simulated": joined["predicted"],
        "ideal": joined["predicted_alone"] * joined["workers"],
        "the bound": joined["predicted_alone"]
        * joined["workers"].clip(upper=1 / joined["server_utilisation_alone"].clip(lower=1e-9)),
    }
)
errors = predictions.div(joined["measured_mean"], axis=0).sub(1).abs()
several = joined["workers"] > 1
summary = {}
for name, rows in {"valid points": several & joined["valid"], "all points": several}.items():
    chosen = errors[rows]
    summary[f"{name}: median error"] = chosen.median()
    summary[f"{name}: largest"] = chosen.max()
    print(f"{name} with several workers: {len(chosen)}")
display(pd.DataFrame(summary))

# %% [markdown]
# Points with one worker are left out: they were calibrated on, though not at every `n_sync`.
#
# The measurement has an error too, and the prediction cannot be asked to be better than that. Below: the scatter of a
# single measured run (the standard deviation over the repeats, relative), beside the error, and whether the interval
# holds the prediction. Where runs scatter little the interval is narrow, and a prediction can be close and still
# outside: then the model is missing something, however small.

# %%
check = table[["group", "n_sync", "workers", "error", "repeats", "valid"]].assign(
    scatter=table["measured_sd"] / table["measured_mean"],
    inside=table["predicted"].between(table["measured_low"], table["measured_high"]),
)
check.reindex(check["error"].abs().sort_values(ascending=False).index)

# %%
worst = table.loc[table["error"].abs().idxmax()]
print(f"inside the interval: {check['inside'].sum()} of {len(check)} points, each with {worst['repeats']} repeats")
print(f"farthest off: {worst['point']}, predicted {worst['predicted']:.2f}, measured {worst['measured_mean']:.2f}")
if not worst["valid"]:
    print(f"there, {worst['overruns']:.0%} of the emulated minibatches took longer than stated")

# %% [markdown]
# ## Staleness
#
# If every worker read at the moment of its own apply, mean staleness would be workers − 1 for any distribution of
# compute times: all are always between a read and an apply, so each version is missed by all others. A fetch that
# waits behind the pushes of others lowers it. At the extreme all fetches wait until the queue is empty, all workers
# compute at once and push at once: a convoy, in which an asynchronous algorithm has synchronised itself. Its mean
# staleness is (workers − 1)/2, and the server idles while all compute, which is most of what separates the simulation
# from *the bound* above. Where between the two columns a point lies says how far the workers have fallen into step.

# %%
staleness = table[["group", "n_sync", "workers", "staleness_predicted", "staleness_measured"]].assign(
    convoy=(table["workers"] - 1) / 2, free=table["workers"] - 1
)
display(staleness[staleness["workers"] > 1])

# %% [markdown]
# ## What this does not show
#
# - One machine, one hour. The repeats follow each other and share its mood; their interval does not cover another
#   day.
# - The points are not independent either: all share one calibration, so that a bad one bends them all the same way.
# - Emulated devices test the queue, the protocol and the processes. Memory bandwidth, a bus, a network card are no
#   part of them, and their agreement says nothing about those. The group `cpu`, where there is one, does compute.
# - At small budgets a run is a few rounds long, and what is not pushed at its end is not counted. Prediction and
#   measurement are cut off alike, so that this does not show as an error, but it does hold the speed-up down.
