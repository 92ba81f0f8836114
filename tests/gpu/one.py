"""`python -m tests.gpu.one MODULE FOLDER [runs]`: one section, whose rows are in FOLDER/rows.jsonl at once.

At its end FOLDER/end.json has where it was measured, and why it failed if it did.
"""

from __future__ import annotations

import importlib
import json
import math
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from asgd_lab.backends.real.preload import preload


def main(module: str, folder: Path, runs: bool) -> None:
    """Exit status 1 if it failed."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell has it that started this in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if runs:
        preload()  # it imports torch while this process does
    import torch

    from tests.gpu.place import Failed, find

    torch.set_num_threads(1)
    place = find()
    why = None
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as rows:
        try:
            for row in importlib.import_module(module).measure(place, folder):
                rows.write(json.dumps(_finite({**row, "on": place.on})) + "\n")
                rows.flush()
        except (Exception, SystemExit) as error:
            why = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
            if not isinstance(error, Failed):
                traceback.print_exc()
    (folder / "end.json").write_text(json.dumps({"on": place.on, "why": why}), encoding="utf-8")
    sys.exit(why is not None)


def _finite(value: Any) -> Any:
    """With null in the place of what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), "runs" in sys.argv[3:])
