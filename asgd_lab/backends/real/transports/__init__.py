"""Transports of a real run's messages and vectors, one file each."""
