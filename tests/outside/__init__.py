"""Algorithms as a user would bring them, from outside of the package: a module each, the documentation's examples."""
