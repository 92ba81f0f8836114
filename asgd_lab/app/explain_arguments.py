"""The command `explain` as the command line has it: its arguments, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from asgd_lab import interrupts
from asgd_lab.app.options import Trust
from asgd_lab.app.reporting import reported


def explain(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", show_default=False, help="The directory of a run.")],
    doses: Annotated[
        str, typer.Option(metavar="LIST", help="Shares of the recorded staleness; 1 and 0 are always executed.")
    ] = "1,0.5,0",
    rates: Annotated[str, typer.Option(metavar="LIST", help="Multiples of the recorded learning rate.")] = "1",
    seeds: Annotated[
        int, typer.Option(metavar="N", min=1, max=1000, help="Seeds of data and initialisation, from the run's own.")
    ] = 10,
    causes: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Removed one at a time: staleness, drift, momentum, shares, lock-step, placebo; waterfall.",
        ),
    ] = "staleness",
    rules_see: Annotated[
        Literal["recorded", "counterfactual"],
        typer.Option("--rules-see", help="The staleness of a push that the server's rule sees."),
    ] = "recorded",
    metric: Annotated[
        str | None,
        typer.Option(metavar="NAME", show_default=False, help="Such as test_error; if not given, the first loss."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", show_default=False, help="For the files that it writes; if not given, RUN_DIR."),
    ] = None,
    trust: Trust = False,
) -> None:
    """Execute a recorded run again, in its recorded order and with the same minibatches, without one of its causes.

    Fetches are moved to later versions: dose 1 is the record, and must give its bits; dose 0 is the same run without
    staleness. The difference is the direct effect of staleness at fixed order and fixed learning rate. Another
    learning rate may suit the run without staleness better: give several rates to know what would be gained.

    Intervals are over seeds, which reseed data and initialisation and keep the order. Recorded files stay as they are.
    """
    with reported(trust=trust):
        from asgd_lab.app import explain_command

        interrupts.heed()
        settings = explain_command.settings(doses, rates, seeds, causes, rules_see, metric)
        explain_command.explain(run_dir, settings, out)
