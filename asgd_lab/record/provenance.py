"""Signatures of run directories: code named by this user's own record may be imported without --trust.

A manifest can be forged, so its word alone counts for nothing. It carries a signature (HMAC-SHA-256) of the scenario
and of the run's inputs (its working folder, the files of its code), made with a random key that only this user can
read. Without the key nobody can sign another record, and a copied record still names only files and folders of this
user. Other files of the directory are not signed. A recorded scenario needs --trust once its values were edited, even
by the user.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files

_KEY_BYTES = 32


def signature(scenario_sha256: str, inputs: Mapping[str, Any]) -> str | None:
    """This user's signature of the scenario's values and the run's inputs; None where no key can be kept."""
    key = _key(make=True)
    return None if key is None else _signed(key, scenario_sha256, inputs)


def recorded_here(run_dir: Path, values_sha256: Callable[[str], str]) -> bool:
    """Whether this user signed the run's scenario, and every file of its code is still in its place.

    `values_sha256` maps the text of scenario.yaml to the hash that was signed.
    """
    key = _key(make=False)
    try:
        manifest = json.loads(atomic_files.read_bytes(run_dir / "manifest.json"))
        scenario_yaml = atomic_files.read_bytes(run_dir / "scenario.yaml").decode()
        inputs, signed = manifest["inputs"], manifest["signature"]
        if key is None or not isinstance(signed, str):
            return False
        if not hmac.compare_digest(signed.encode(), _signed(key, values_sha256(scenario_yaml), inputs).encode()):
            return False
        return all(os.path.isfile(each["file"]) for each in inputs["code"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ScenarioError):
        return False


def _signed(key: bytes, scenario_sha256: str, inputs: Mapping[str, Any]) -> str:
    return hmac.new(key, json.dumps([scenario_sha256, inputs], sort_keys=True).encode(), hashlib.sha256).hexdigest()


def _key(make: bool) -> bytes | None:
    """The user's key, from $XDG_STATE_HOME/asgd-lab/key; None where there is none, or others can read it."""
    path = _state_home() / "asgd-lab" / "key"
    try:
        if make and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            own = path.with_name(f"key.{secrets.token_hex(8)}.new")
            descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            os.replace(own, path)  # of two at once the later key stays, and does not verify the other's first run
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o077 or not stat.S_ISREG(about.st_mode):
                return None
            key = file.read(_KEY_BYTES + 1)
    except (OSError, ValueError):
        return None
    return key if len(key) == _KEY_BYTES else None


def _state_home() -> Path:
    given = os.environ.get("XDG_STATE_HOME", "")
    return Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~")) / ".local" / "state"
