"""Golden files: what every server rule made of fixed updates, bit by bit, so that a change of arithmetic shows.

`python -m tests.golden.make` from the repository's root writes `tests/golden/RULE.json` anew, one file a case. Do that
only when a rule is meant to change; say so in the commit, and look at the differences. A file holds the start, the
pushes of each version (one, or several which a collecting gate merges), the parameters after each version and the
rule's state at the end; every number is a float32 as eight hexadecimal digits of its bits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asgd_lab.protocol import rules
from asgd_lab.protocol.parameters import Parameters
from asgd_lab.protocol.rules import Rule
from tests.protocol.toys import Unwritten, pushed

FOLDER = Path(__file__).parent
P, VERSIONS = 7, 6
MERGED = 3  # pushes of a collected round

CASES: dict[str, tuple[Rule, int]] = {
    "add": (rules.add(), 1),
    "scale": (rules.scale(0.125), 1),
    "mean": (rules.mean(), MERGED),
    "sgd": (rules.sgd(0.05), 1),
    "momentum": (rules.momentum(0.9), 1),
    "nesterov": (rules.momentum(0.9, nesterov=True), 1),
    "adagrad": (rules.adagrad(0.1), 1),
    "adadelta": (rules.adadelta(), 1),
    "chain": (rules.chain(rules.mean(), rules.momentum(0.9, nesterov=True), rules.adagrad(0.1)), MERGED),
}
"""Each rule, and how many pushes make a version."""


def run(rule: Rule, start: Tensor, versions: Sequence[Sequence[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters after each version, and the rule's state after the last; all memory is NaN before it is used."""
    mailboxes = {worker: torch.empty_like(start) for worker in range(len(versions[0]))}
    parameters = Parameters(start, rule, mailboxes, Unwritten(start))
    made = []
    for pushes in versions:
        for worker, push in enumerate(pushes):
            mailboxes[worker].copy_(push)
        for fresh in parameters._fresh:
            fresh.fill_(torch.nan)
        scratch = parameters._workspace._scratch
        if scratch is not None:
            scratch.fill_(torch.nan)
        parameters.step([pushed(worker) for worker in sorted(mailboxes)])
        made.append(parameters.current.clone())
    return made, [tensor.clone() for tensor in parameters.state]


def encode(tensor: Tensor) -> str:
    """Float32 numbers as hexadecimal words of their bits."""
    return " ".join(f"{word:08x}" for word in tensor.numpy().view(np.uint32).tolist())


def decode(text: str) -> Tensor:
    """The numbers of `encode`."""
    return torch.from_numpy(np.array([int(word, 16) for word in text.split()], np.uint32).view(np.float32))


def golden(name: str) -> dict[str, Any]:
    """One case, computed now."""
    rule, merged = CASES[name]
    random = np.random.Generator(np.random.PCG64(2013))
    numbers = random.standard_normal((1 + VERSIONS * merged, P)).astype(np.float32)
    start, *pushes = torch.from_numpy(numbers).unbind()
    versions = [pushes[first : first + merged] for first in range(0, len(pushes), merged)]
    made, state = run(rule, start, versions)
    return {
        "rule": rule.name,
        "start": encode(start),
        "pushes": [[encode(push) for push in version] for version in versions],
        "parameters": [encode(each) for each in made],
        "state": [encode(each) for each in state],
    }


if __name__ == "__main__":
    for case in CASES:
        (FOLDER / f"{case}.json").write_text(json.dumps(golden(case), indent=1) + "\n", encoding="utf-8")
