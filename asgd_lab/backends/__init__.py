"""Backends give the protocol's effects their meaning; only this folder knows clocks, processes and the simulator."""
