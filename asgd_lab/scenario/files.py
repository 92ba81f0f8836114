"""The text of a scenario file: read only from a file, up to the most bytes of a scenario."""

from __future__ import annotations

import os
import re
import stat

import asgd_lab.scenario.carried as carried
from asgd_lab.errors import ScenarioError
from asgd_lab.scenario.source import MOST_CHARACTERS

_MOST_BYTES = 4 * MOST_CHARACTERS
# A shell's descriptors, as in `... | asgd-lab validate /dev/stdin`, may be pipes: their writer is there.
_DESCRIPTOR = re.compile(r"/dev/(stdin|fd/\d+)|/proc/self/fd/\d+")
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def read(name: str) -> str:
    """The text of the file; every error is one line. A pipe or a device, which might block, is refused."""
    try:
        kind = _KINDS.get(stat.S_IFMT(os.stat(name).st_mode))
        if kind is not None and (kind == "a directory" or not _DESCRIPTOR.fullmatch(name)):
            raise ScenarioError(f"{name}: is {kind}; give the path of a scenario file")
        with open(name, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        hint = f"; did you mean --set {name}?" if "=" in name else carried.hint(name)
        raise ScenarioError(f"{name}: no such file; give the path of a scenario file{hint}") from None
    except OSError as error:
        raise ScenarioError(f"{name}: cannot be read: {error.strerror}") from None
    except ValueError:  # such as a NUL in the name
        raise ScenarioError(f"{name}: is not the name of a file; give the path of a scenario file") from None
    if len(content) > _MOST_BYTES:
        raise ScenarioError(f"{name}: has more than {MOST_CHARACTERS:,} characters; no scenario is as long")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ScenarioError(f"{name}:{line}: is not UTF-8 text; save the file as UTF-8") from None
