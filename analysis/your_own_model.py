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
# # Your own model, from a cell
#
# A network and a task that exist in this notebook alone are trained asynchronously: simulated, by real processes, over
# a sweep, and predicted beside measured. Then the run is repeated to the bit, and the trained module is used here.
# Nothing is written down for the processes: the classes of a cell travel to them through pipes. So such a run can be
# repeated only where its classes are defined, which is here.

# %%
import tempfile
from pathlib import Path

import pandas as pd
import torch
from IPython.display import display
from torch import nn

import asgd_lab

pd.set_option("display.precision", 3, "display.width", 120)
out = Path(tempfile.mkdtemp(prefix="asgd-lab-"))

# %% tags=["parameters"]
MINIBATCHES = 2_000  # of all workers together, in each run
N_SYNC = (1, 5, 25)
COMPARED_S = 2.0  # of each measured run

# %% [markdown]
# ## A model and a task
#
# The task is one class: its model, its minibatches, its loss, and what it is evaluated on. A minibatch is a function of
# worker, seed and step alone, so that a run can be repeated. Here a small network learns a wave, from points that are
# drawn for each minibatch; a worker never sees another one's points.


# %%
class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.head = nn.Linear(width, 1)

    def forward(self, x):
        return self.head(self.layers(x))


class Wave:
    def model(self, seed):
        return Net(width=32)

    def batch(self, worker, workers, seed, step, samples=32):
        drawn = torch.Generator().manual_seed((step * workers + worker) * 1_000 + seed)
        x = 4.0 * torch.rand(samples, 1, generator=drawn) - 2.0
        return x, torch.sin(3.0 * x)

    def loss(self, model, batch):
        x, y = batch
        return nn.functional.mse_loss(model(x), y)

    def evaluations(self):
        yield "test", [self.batch(0, 1, 99, 0, samples=512)]


# %% [markdown]
# ## Simulated
#
# A scenario is a mapping with the keys of a scenario's YAML file. The class stands where the file would have a name.
# In the simulation four workers compute real gradients in virtual time, on hardware that is stated: 10 ms a minibatch,
# and 1 ms each way to the server. A run shows its numbers; its tables are read when they are asked for.

# %%
scenario = {
    "name": "wave",
    "task": {"name": "own", "task": Wave, "optimizer": {"name": "Adam", "lr": 0.003}},
    "algorithm": {"name": "asgd", "n_sync": 5},
    "workers": 4,
    "budget": {"minibatches": MINIBATCHES},
    "evaluate": {"every_minibatches": MINIBATCHES // 10, "parameters": ["server"]},
    "backend": "sim",
    "hardware": {"compute": {"distribution": "lognormal", "step_s": 0.01, "cv": 0.3}, "link": {"latency_s": 0.001}},
}
simulated = asgd_lab.run(scenario, out=out / "simulated")
display(simulated)

# %% [markdown]
# ## Measured
#
# The same scenario with two worker processes that share memory with a parameter server. `changes` are dotted keys; the
# stated hardware is removed, since the real one is measured. Where the two runs stale alike, they learn alike; their
# seconds are those of different machines.

# %%
measured = asgd_lab.run(scenario, {"backend": "process", "workers": 2, "hardware": None}, out=out / "measured")
pd.DataFrame(
    {
        name: {
            "workers": run.summary["workers"],
            "seconds": run.summary["makespan_s"],
            "mean staleness": run.summary["staleness"]["mean"],
            "test loss": run.summary["final"]["test_loss"],
            "pushes recorded": (run.effects["kind"] == "push").sum(),
        }
        for name, run in {"simulated": simulated, "measured": measured}.items()
    }
)

# %% [markdown]
# ## A sweep
#
# How rarely may the workers synchronise? Each value is a run; simulated points run at the same time, a core each. The
# frame has a row a point, and the figure a curve.

# %%
swept = asgd_lab.sweep(scenario, {"sweep": {"algorithm.n_sync": list(N_SYNC)}}, out=out / "swept")
swept.frame[["algorithm.n_sync", "makespan_s", "minibatches_per_s", "staleness_mean", "test_loss"]]

# %%
swept.plot.curves(metric="loss", x="time_s")

# %% [markdown]
# ## Predicted beside measured
#
# One real worker is measured for a few seconds. From that alone the simulation predicts the speed-up of two, which are
# then measured. On a machine with other work to do the interval is wide, and `busy` says so.

# %%
compared = asgd_lab.compare(
    scenario,
    {"backend": "process", "workers": 2, "hardware": None, "evaluate": None, "budget": {"seconds": COMPARED_S}},
    out=out / "compared",
    repeats=1,
)
compared.frame[["workers", "predicted", "measured_mean", "staleness_predicted", "staleness_measured", "busy"]]

# %% [markdown]
# ## Repeated to the bit
#
# The measured run was recorded: which push reached the server when. Repeated in this order, in one process, it has the
# same parameters, bit for bit, although two processes had raced.

# %%
again = measured.replay()
assert again.same_bits
display(again)

# %% [markdown]
# ## Taken home
#
# The trained module is a plain one, with the server's final parameters. It is the same class that the cell above
# defines, and needs nothing of this package.

# %%
model = measured.model()
assert isinstance(model, Net)
x = torch.linspace(-2.0, 2.0, 5).unsqueeze(1)
with torch.no_grad():
    table = pd.DataFrame({"x": x[:, 0], "learned": model(x)[:, 0], "sin 3x": torch.sin(3.0 * x)[:, 0]})
display(table)

# %% [markdown]
# ## What this does not show
#
# - A wave is no benchmark: nothing here says which `n_sync` another network bears.
# - The prediction is of time and staleness. What a run learns is simulated with real gradients, as in the sweep.
# - A class of a cell is recorded by its digest, not by its source: a run that others shall repeat belongs into a
#   module, and its scenario into a file.
