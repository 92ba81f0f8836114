"""The three errors of our own, named by whose fault they are; each carries one message string and nothing else."""

from __future__ import annotations


class ScenarioError(Exception):
    """The user's input is wrong: the message says where, what, and what is allowed."""

    key: str = ""

    @classmethod
    def at(cls, key: str, message: str) -> ScenarioError:
        """An error about the scenario's dotted `key`, to which whoever knows the file adds file and line."""
        error = cls(message)
        error.key = key
        return error


class ProtocolError(Exception):
    """A bug in a backend: it called the server or a replica in a way that no run may."""


class RunFailed(Exception):
    """A worker or the server died: the message says which, why, and where its log is."""
