"""The sim backend: the same protocol in virtual time, over a model of devices, link and server."""

from asgd_lab.backends.sim.simulation import run

__all__ = ["run"]
