"""Names of run directories: new ones by the time, and those of a sweep's points by the points' names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable
from datetime import datetime
from pathlib import Path

from asgd_lab.record.directory_locks import unusable


def default_directory(scenario_name: str, root: Path | str = "runs") -> Path:
    """Make and return a new directory `root/NAME/YYYYmmdd-HHMMSS[-k]`; two runs that start together get two."""
    parent = Path(root) / file_name(scenario_name)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    number = 0
    while True:
        path = parent / (f"{stamp}-{number}" if number else stamp)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise unusable(path, "--out", error) from None
        else:
            return path


def file_name(text: str) -> str:
    """A name as one component of a path: itself if that is safe, else its safe letters and a hash of the whole name."""
    safe = re.sub(r"[^\w.,=+@-]+", "-", text).strip("-.")
    safe = safe.encode()[:200].decode(errors="ignore")  # file systems count bytes
    if safe and safe == text:
        return safe
    return f"{safe or 'run'}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


def file_names(texts: Iterable[str], beside: Collection[str] = ()) -> list[str]:
    """Each text's `file_name`, all different, even for a file system that ignores case or Unicode's normal form.

    Of two equal names the earlier one stays and the later one ends in a hash. Names in `beside` are avoided.
    """
    names, known = [], set(beside)
    for text in texts:
        name, number = file_name(text), 0
        while (folded := unicodedata.normalize("NFKC", name).casefold()) in known:
            digest = hashlib.blake2b(f"{number} {text}".encode(), digest_size=8).hexdigest()
            name, number = f"{file_name(text).encode()[:180].decode(errors='ignore')}-{digest}", number + 1
        known.add(folded)
        names.append(name)
    return names
