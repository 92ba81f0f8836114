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
# # GPU A-SGD, claim by claim
#
# Paine, Jin, Yang, Lin and Huang 2013 (arXiv:1312.6186) trained the network of Krizhevsky et al. on ILSVRC 2012 with up
# to 32 GPUs that never wait for each other. Here their experiments are made again in virtual time: the paper's machine
# and its network's bytes, over a smaller learning problem of as many classes (three images of Fashion-MNIST at a time),
# at a tenth of the minibatches. `make paper` and `make paper-full` run `scenarios/paper` and make the two tables that
# this notebook reads; those of a full run are kept beside it.
#
# Whose error a figure shows decides several verdicts, so all are shown twice: of the replicas, on the minibatches that
# they train on, which is probably what the paper plots; and of the server's parameters, which is what one would use.

# %%
import sys
import tempfile
from pathlib import Path

import pandas as pd
from IPython.display import Image, Markdown, display

import asgd_lab
from asgd_lab.figures import style

HERE = Path(asgd_lab.__file__).parents[1] / "analysis" / "paper"
sys.path.insert(0, str(HERE))
import cells  # noqa: E402
import figures  # noqa: E402
import verdicts  # noqa: E402

# %% tags=["parameters"]
TABLES = None  # the directory that `collect` wrote; None: the kept tables of a full run
OUT = None  # a directory for figures and verdicts; None: a temporary one

# %%
if Path(sys.argv[0]).name == "paper.py":  # as a program: python analysis/paper/paper.py TABLES OUT
    TABLES, OUT = sys.argv[1:]
folder, out = Path(TABLES or HERE / "tables"), Path(OUT or tempfile.mkdtemp(prefix="asgd-lab-"))
runs, curves = (pd.read_parquet(folder / f"{name}.parquet") for name in ("runs", "curves"))
tables = cells.Tables.of(runs, curves)
seeds = runs.groupby("experiment")["seed"].nunique()
display(Markdown(f"{len(runs)} runs; seeds: {', '.join(f'{name} {count}' for name, count in seeds.items())}"))

# %% [markdown]
# ## Verdicts
#
# Each rule was written before the runs, and these were changed after some of them:
#
# - after a first run of one seed, A4's hour: the second, in which nobody had learned anything, became the twelfth,
#   halfway. For a while A4 also asked less (16 and 32 clients behind the best of 2, 4 and 8, in any order), and was
#   "fitted"; that was taken back.
# - after the first runs of three seeds, a rank correlation of exactly 0.8, which comes out a little less in floating
#   point, was rounded, so that it counts.
# - after a first full run, how the two measures make one verdict: what one of them alone shows is said to be its own,
#   and gaps of which only one has the paper's size are an ordering.
# - after that run, too, and with its numbers known, nearly all was made harder: A2 must hold in every seed, and A3, A4
#   and A15 by intervals over seeds, where means of curves had decided; A3's lowest error is looked for in the other
#   seeds; a gap has the paper's size (A7, A11) if its interval says so, which a wide one does more easily; and what
#   hangs on time (A7, A8, A10, A11) must hold at both ends of the region of costs, or is fitted.
# - after a second full run, again harder: A9's growth must count to be more than an ordering, and its cause is decided
#   by the growth in lock-step; A10's fewer minibatches are looked for at the ends of the region, too. What a smoothed
#   curve owes to chance was taken for larger than it is (the trend takes part of it), which made the smallest
#   deviations zero.
#
# The learning rate is 0.08 unless it says otherwise: it was fixed before learning-rate.yaml's sweep, whose lowest mean
# is at 0.05, and from 0.05 to 0.1 it is flat. Errors are of training samples unless it says test.

# %%
text = verdicts.markdown(verdicts.table(tables))
out.mkdir(parents=True, exist_ok=True)
text += f"\n\nn_sync 300 with 2 clients, which the paper's figures lack: {verdicts.prediction(tables)}.\n"
text += f"\nOne client's test error after 105,000 minibatches by learning rate: {verdicts.rates(tables)}.\n"
text += f"\nBatched less sequential numerics, 8 clients, n_sync 100: {verdicts.batching(tables)}.\n"
text += f"\nBy how much other rules at the server lower the error: {verdicts.planned(tables)}.\n"
display(Markdown(text))
beyond = verdicts.beyond(runs)
text += f"\nErrors after 24 hours beside the claims:\n\n{verdicts.rows_of(beyond)}\n"
(out / "verdicts.md").write_text(text, encoding="utf-8")

# %% [markdown]
# ## Figures

# %%
for name, maker in figures.FIGURES.items():
    drawn = maker(runs, curves)
    png, _ = style.save(drawn, out / name)
    display(Image(str(png), width=700))

# %% [markdown]
# ## Beside the claims
#
# What the authors planned, other rules at the server for the cold start of 8 clients; momentum at a fetch; other costs,
# another rate, other data. Errors after 24 hours.

# %%
display(beyond)

# %% [markdown]
# ## What this does not show
#
# - A small network on composed images is not Krizhevsky's on ILSVRC 2012: a size that agrees with the paper's is no
#   proof, and one that does not is no refutation. Orderings and mechanisms are what carries over.
# - It has no dropout, no augmentation, no weight decay and no momentum (momentum.yaml: 0.9 at a tenth of the
#   minibatches), so experiment 1 over-fits earlier than the paper's did.
# - What a synchronisation cost in software is fitted to the paper's own times, so nothing that is a matter of time
#   alone is reproduced here but A14, which needs the hardware alone.
# - Three seeds: an interval of 95% is 4.3 standard errors wide on each side, and small gaps do not count.
