"""Costs of hardware: numbers with units, and random step times; no simulator in this folder."""
