"""Grants: the server's answers, each of which releases one worker from one fetch or one push."""

from __future__ import annotations

from typing import NamedTuple

DROPPED = -1


class FetchGrant(NamedTuple):
    """A fetch is answered: the worker may read `version` and take `steps` minibatches; 0 means leave."""

    worker: int
    version: int
    steps: int


class PushGrant(NamedTuple):
    """A push is done: `version` is the one it went into, or `DROPPED`; its mailbox may be rewritten."""

    worker: int
    incarnation: int  # whose push it was; a later incarnation of the worker is not meant
    sequence: int
    version: int
    staleness: int  # versions made between the fetch of its oldest center and its application, or its being dropped
    steps: int


Grant = FetchGrant | PushGrant
