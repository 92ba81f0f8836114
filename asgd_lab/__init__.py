"""A simulation-plus-real testbed for asynchronous data-parallel training."""

__version__ = "0.1.0"
