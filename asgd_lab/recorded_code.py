"""A recorded run's code: trusted where the run is the user's own, and imported from the folder where it was."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from asgd_lab import live_objects
from asgd_lab.record import code_sources
from asgd_lab.record.provenance import recorded_here
from asgd_lab.record.run import read_manifest
from asgd_lab.scenario import values_sha256
from asgd_lab.trust import is_trusted, trusting


@contextlib.contextmanager
def as_recorded(run_dir: Path, say: Callable[[str], object]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the run's path, which holds inside, and its manifest; at the end `say` each source that has changed.

    Code that the user's own record names is imported from its recorded folder, not from the current directory.
    """
    manifest = read_manifest(run_dir)
    recorded = manifest.get("inputs") or {}
    with trusting(is_trusted() or recorded_here(run_dir, values_sha256)), contextlib.ExitStack() as stack:
        run_dir = Path(os.path.abspath(run_dir)) if recorded.get("code") else run_dir
        if is_trusted() and recorded.get("code"):
            stack.enter_context(_as_there(recorded))
        try:
            yield run_dir, manifest
        finally:
            code = recorded.get("code", {})
            for line in (*code_sources.changed(code), *live_objects.changed(code)):
                say(f"{run_dir}: {line}")


@contextlib.contextmanager
def _as_there(recorded: Mapping[str, Any]) -> Iterator[None]:
    """Import as the recorded run did, in its folder: options of the user's code may be relative paths."""
    path, here = list(sys.path), os.getcwd()
    sys.path[:] = [*code_sources.roots(recorded["code"]), *path, *([] if here in path else [here])]
    try:
        with contextlib.suppress(OSError):
            os.chdir(recorded["folder"])
        yield
    finally:
        os.chdir(here)
        sys.path[:] = path
