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
# # Where does the time go?
#
# A worker computes, copies, sends, waits for its turn, is served. The simulator puts every nanosecond of every worker
# under one of these headings, and says of every link and server how busy it was and how many were there. That is
# enough to find a bottleneck, and to see why there sometimes is none and everybody waits all the same. Nothing is
# learned here: vectors have a size and minibatches a duration.

# %%
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from IPython.display import Image, display

import asgd_lab
from asgd_lab.figures import style
from asgd_lab.figures.timeline import timeline, timelines
from asgd_lab.figures.where_time_goes import over_time, time_shares
from asgd_lab.record.directory_names import file_name
from asgd_lab.scenario import Document

torch.set_num_threads(1)
pd.set_option("display.precision", 3, "display.width", 120)

# %% tags=["parameters"]
WORKERS = (8, 32)
N_SYNC = (1, 3, 10, 30, 100, 300, 600)
UPDATES = 3_200  # versions of each run
STEPS_S = (0.08, 0.04, 0.02, 0.01)
FIGURES = None  # a directory to keep the figures in; None: a temporary one

# %%
out = Path(tempfile.mkdtemp(prefix="asgd-lab-"))
figures = Path(FIGURES or out)


def run(scenario: str, **changes: Any) -> tuple[dict[str, Any], Path]:
    """The summary and the directory of one run; changes are scenario keys with __ for the dot."""
    overrides = {key.replace("__", "."): value for key, value in changes.items()} | {"budget.updates": UPDATES}
    found = asgd_lab.run(scenario, overrides, out=out / file_name(f"{scenario} {overrides}"))
    return found.summary, found.path


def shares(summary: dict[str, Any]) -> dict[str, float]:
    """The shares of workers' time, by the summary's headings."""
    mean = summary["time"]["mean"]
    return {name: seconds / sum(mean.values()) for name, seconds in mean.items()}


# %% [markdown]
# ## Blue Waters, 2012
#
# `where-does-time-go.yaml` has the hardware of GPU A-SGD (Paine et al. 2013): one K20X a worker, a minibatch a second,
# 244 MB of parameters. Above, what the hardware costs; below, with the software costs that the paper's own durations
# force on it, half paid by each client for itself and half by the server, one after the other.
#
# `queue` is waiting for the server and being served, `staging` the copies between GPU and host.

# %%
HARDWARE = "blue-waters-k20x"
MACHINES = {"hardware alone": HARDWARE, "fitted software": [HARDWARE, "paine-2013-software"]}
panels: dict[str, dict[int, Path]] = {}
for label, preset in MACHINES.items():
    for workers in WORKERS:
        changes = {"hardware__preset": preset, "workers": workers}
        panels[f"{workers} workers, {label}"] = {
            n_sync: run("where-does-time-go", algorithm__n_sync=n_sync, **changes)[1] for n_sync in N_SYNC
        }
Image(str(style.save(time_shares(panels), figures / "where-time-goes")[0]))

# %% [markdown]
# With hardware alone the whole question is over at n_sync = 10; nobody would need 600. It is software, if the paper's
# durations are taken at their word, that makes large n_sync necessary, and with 32 workers even that is too little.
#
# One worker alone can be calculated: nobody is in its way. What 32 add to it at n_sync = 1 is waiting for the server's
# network card, which they share.

# %%
(point,) = Document.read("where-does-time-go").points({"algorithm.n_sync": 1, "workers": 1})
machine, size = point.scenario.hardware, point.scenario.task.size_bytes
calculated = {
    "compute": machine.compute.step_s,
    "staging": size / machine.staging.to_host_bytes_per_s + size / machine.staging.to_device_bytes_per_s,
    "link": 2 * size / machine.link.bandwidth_bytes_per_s,
    "queue": size / machine.server.push_bytes_per_s + size / machine.server.fetch_bytes_per_s,
}
rows = {"calculated, 1 worker": {name: seconds / sum(calculated.values()) for name, seconds in calculated.items()}}
for workers in (1, *WORKERS):
    summary, path = run("where-does-time-go", workers=workers, algorithm__n_sync=1, record="all")
    rows[f"simulated, {workers} workers"] = shares(summary)
display(pd.DataFrame(rows).T[list(calculated)])
Image(str(style.save(over_time(path), figures / "over-time")[0]))

# %% [markdown]
# The same as a picture: eight workers for three seconds. An arrow leads from the end of a transfer to the moment at
# which the server turns to it; where two pushes meet on the link, both take longer. `trace.json` has all of it, for
# ui.perfetto.dev.

# %%
summary, path = run("where-does-time-go", workers=WORKERS[0], algorithm__n_sync=1, record="all", seed=1)
Image(str(style.save(timeline(path, 5.0, 8.0), figures / "timeline")[0]))

# %% [markdown]
# ## A slower server that is faster
#
# `can-a-slower-server-be-faster.yaml`: sixteen regular GPUs share a link fairly. In one machine the server answers a
# fetch at once, in the other that takes it 10 ms. Two laws can be calculated. `bound`: a worker's own round, or the
# busiest of link and server. `jam`: everybody does the same at the same time, so that a round is Z + M (2T + S).

# %%
M, T, S, N = 16, 0.02, 0.01, 10
rows = []
for step_s in STEPS_S:
    row = {"step_s": step_s}
    for fetch_s in (0.0, 0.01):
        changes = {"hardware__server__fetch_s": fetch_s, "hardware__compute__step_s": step_s}
        summary, _ = run("can-a-slower-server-be-faster", **changes)
        busy = {resource["name"]: resource["utilisation"] for resource in summary["resources"]}
        own_s = N * step_s + 2 * T + S + fetch_s
        row |= {
            f"fetch {fetch_s:g} s": summary["minibatches_per_s"],
            f"bound, {fetch_s:g} s": N * min(M / own_s, 1 / T, 1 / (S + fetch_s)),
            f"link busy, {fetch_s:g} s": busy["link up"],
        }
    rows.append(row | {"jam": N * M / (N * step_s + M * (2 * T + S))})
pd.DataFrame(rows).set_index("step_s")

# %% [markdown]
# With 10 ms a fetch the bound is reached. Without, the run follows it only until the link would be full, and falls to
# the jam, where link and server idle two thirds of the time and more. The timelines say why: without the 10 ms all
# fetches are answered at the same moment, behind the last push; sixteen transfers that share a link fairly arrive
# together, and so it goes on. With the 10 ms workers leave the server one by one, like cars at a ramp meter, and do not
# meet again.

# %%
pair = {}
for fetch_s, label in ((0.0, "A fetch is answered at once"), (0.01, "A fetch takes the server 10 ms")):
    changes = {"hardware__server__fetch_s": fetch_s, "hardware__compute__step_s": 0.02, "record": "all"}
    pair[label] = run("can-a-slower-server-be-faster", **changes)[1]
Image(str(style.save(timelines(pair, 20.0, 21.2), figures / "slower-server")[0]))

# %% [markdown]
# ## What this does not show
#
# - It is a model: a link that all share with perfect fairness, costs that do not vary, GPUs whose minibatches differ by
#   3%. With exponential times, which queueing theory likes best, there is no jam; measured GPUs are far from them.
# - Workers start together, which is how a jam begins, and how real runs begin. A long run leaves it where traffic is
#   light, and does not where it is heavy; the shares are means over both.
# - A jam costs throughput. It also lowers staleness, to half of what free traffic has, so that a minibatch in a jam may
#   teach more; nothing was learned here.
# - The software costs of 2012 are one point of a region that fits (see `asgd-lab list presets`).
