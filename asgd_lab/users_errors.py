"""Errors of users' code: whose fault each is, and the one line that reports it."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from typing import NoReturn

from asgd_lab.choices import Chosen, is_ours, loaded
from asgd_lab.errors import ProtocolError, RunFailed, ScenarioError, refusal
from asgd_lab.users_code import is_users, said


@contextlib.contextmanager
def blaming(choice: Chosen, key: str) -> Iterator[None]:
    """Turn errors of a user's class into a `ScenarioError` at the key; errors of our classes are bugs, and stay."""
    try:
        yield
    except ScenarioError as error:
        raise error if error.key else ScenarioError.at(key, str(error)) from error
    except Exception as error:
        if is_ours(choice):
            raise
        raise ScenarioError.at(key, f"{choice.name} cannot be built: {said(error)}") from error


@contextlib.contextmanager
def failing(what: str, *, passed: bool = False) -> Iterator[None]:
    """Turn errors of a user's code during a run into a `RunFailed`; errors of our own types stay.

    With `passed`, all errors stay that did not pass through code of a user.
    """
    try:
        yield
    except Exception as error:
        if passed and not _passes_users_code(error):
            raise
        fail(what, error)


def fail(what: str, error: Exception) -> NoReturn:
    """Raise a `RunFailed` from an error of a user's code; raise as it is an error of our own types, and a refusal of
    the operating system that the user's code had no part in.
    """
    if isinstance(error, ProtocolError | RunFailed | ScenarioError):
        raise error
    if refusal(error) is not None and not _passes_users_code(error):
        raise error
    raise RunFailed(f"{what} failed: {said(error)}") from error


def _passes_users_code(error: Exception) -> bool:
    """Whether its traceback has a frame of a class that was chosen, or of a file that belongs to no library."""
    theirs = {found.__module__ for _, _, found in loaded()}
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(frame.f_globals.get("__name__") in theirs or is_users(frame.f_code.co_filename) for frame in frames)
