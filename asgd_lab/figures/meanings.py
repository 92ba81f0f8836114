"""Words for what workers, servers and links do: the headings of time, and the kinds of effects; no drawing library."""

from __future__ import annotations

HEADINGS = {
    "compute": "computing",
    "wasted": "computing, wasted",
    "client": "client's software",
    "staging": "copies to and from the device",
    "link": "on the link",
    "queue": "at the server: waiting, served",
    "gate": "held back by the algorithm",
    "down": "crashed",
    "idle": "idle at the end",
}
"""The headings of workers' time."""

KINDS = {
    "train": "training",
    "fetch": "rest of a push or fetch",
    "push": "rest of a push or fetch",
    "adopt": "on the device",
    "measure": "on the device",
    "to_host": "copy",
    "to_device": "copy",
    "up": "transfer up",
    "down": "transfer down",
    "apply": "a push at the server",
    "grant": "a fetch at the server",
}
"""The kinds of effects; later ones are drawn on top: the parts of an exchange on the exchange."""
