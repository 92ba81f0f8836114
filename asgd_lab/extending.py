"""All that an algorithm of one's own is written with: `from asgd_lab import extending as lab`.

A scenario names it as package.module:Name. An algorithm is a configuration (its keys) and a sentence over a worker's
program, a gate and a rule; what the built-in ones have is all there is.
"""

from asgd_lab.algorithms import Added, Apart, Configuration, Link, Ruled, Together
from asgd_lab.algorithms.base import Links, Push
from asgd_lab.algorithms.codecs import Compression
from asgd_lab.protocol.algorithms import Algorithm, blocking
from asgd_lab.protocol.codecs import Codec
from asgd_lab.protocol.effects import Effect, Fetch, Program, Start, Train, Wait, lease
from asgd_lab.protocol.effects import Push as PushEffect
from asgd_lab.protocol.gates import (
    APPLY,
    HOLD,
    KEEP,
    Action,
    Asynchronous,
    BoundedStaleness,
    Gate,
    LockStep,
    Verdict,
    View,
    drop,
)
from asgd_lab.protocol.members import Member
from asgd_lab.protocol.messages import PushRequest, Reason
from asgd_lab.protocol.programs import coupled, overlapped, uncoupled
from asgd_lab.protocol.replica import Replica
from asgd_lab.protocol.rules import Context, Rule, Scaled, State, Workspace, chain, weighing
from asgd_lab.protocol.vectors import Anchored, AnchoredDelta, Delta, GradientSum

__all__ = [
    "APPLY",
    "HOLD",
    "KEEP",
    "Action",
    "Added",
    "Algorithm",
    "Anchored",
    "AnchoredDelta",
    "Apart",
    "Asynchronous",
    "BoundedStaleness",
    "Codec",
    "Compression",
    "Configuration",
    "Context",
    "Delta",
    "Effect",
    "Fetch",
    "Gate",
    "GradientSum",
    "Link",
    "Links",
    "LockStep",
    "Member",
    "Program",
    "Push",
    "PushEffect",
    "PushRequest",
    "Reason",
    "Replica",
    "Rule",
    "Ruled",
    "Scaled",
    "Start",
    "State",
    "Together",
    "Train",
    "Verdict",
    "View",
    "Wait",
    "Workspace",
    "blocking",
    "chain",
    "coupled",
    "drop",
    "lease",
    "overlapped",
    "uncoupled",
    "weighing",
]
