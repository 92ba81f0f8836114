"""The algorithms, a file each: configuration, facts, sentence. A new one is a new file, and a name in this registry."""

from asgd_lab.algorithms.asgd import Asgd
from asgd_lab.algorithms.base import Added, Apart, Configuration, Ruled, Together, UnreadAlgorithm
from asgd_lab.algorithms.downpour import Downpour
from asgd_lab.algorithms.hogwild import Hogwild
from asgd_lab.algorithms.rules import RULES, Link
from asgd_lab.algorithms.sgd import Sgd
from asgd_lab.algorithms.ssp import Ssp
from asgd_lab.algorithms.sync_sgd import SyncSgd
from asgd_lab.choices import Mappings

ALGORITHMS = Mappings("algorithms", Configuration, (Asgd, Downpour, Ssp, SyncSgd, Hogwild, Sgd), UnreadAlgorithm)

__all__ = [
    "ALGORITHMS",
    "RULES",
    "Added",
    "Apart",
    "Asgd",
    "Configuration",
    "Downpour",
    "Hogwild",
    "Link",
    "Ruled",
    "Sgd",
    "Ssp",
    "SyncSgd",
    "Together",
]
