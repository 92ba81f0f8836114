"""A record is this user's only where it carries this user's signature, of this scenario and these files."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from asgd_lab.record import code_sources, provenance
from asgd_lab.record.provenance import recorded_here, signature
from asgd_lab.scenario import values_sha256

YAML = b"name: toy\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def recorded(home: Path, **changed: Any) -> Path:
    (home / "mine.py").write_text("x = 1\n")
    code = {"mine": {"file": str(home / "mine.py"), "sha256": "0"}}
    inputs = {"folder": str(home), "code": code}
    manifest = {"inputs": inputs, "signature": signature(values_sha256(YAML.decode()), inputs), **changed}
    run_dir = home / "run"
    run_dir.mkdir(exist_ok=True)
    (run_dir / "scenario.yaml").write_bytes(YAML)
    (run_dir / "manifest.json").write_text(json.dumps(manifest))
    return run_dir


def test_what_this_user_recorded_is_known_wherever_it_lies(home: Path) -> None:
    run_dir = recorded(home)
    assert recorded_here(run_dir, values_sha256)
    assert recorded_here(run_dir.rename(home / "elsewhere"), values_sha256)
    (home / "elsewhere" / "scenario.yaml").write_bytes(b"# the user's own words\n" + YAML)
    assert recorded_here(home / "elsewhere", values_sha256), "a comment is no value"
    key = home / "state" / "asgd-lab" / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert os.listdir(key.parent) == ["key"]


@pytest.mark.parametrize("how", [
    "another scenario", "another file", "another folder", "no signature", "a signature that is no text", "another key",
    "no key", "a key that others can read", "a short key", "the file is gone", "no manifest",
    "a manifest that is no mapping",
])  # fmt: skip
def test_anything_else_is_a_strangers(home: Path, how: str) -> None:
    run_dir, key = recorded(home), home / "state" / "asgd-lab" / "key"
    match how:
        case "another scenario":
            (run_dir / "scenario.yaml").write_bytes(YAML + b"seed: 1\n")
        case "another file":
            recorded(home, inputs={"code": {"mine": {"file": "/etc/passwd", "sha256": "0"}}})
        case "another folder":
            manifest = json.loads((run_dir / "manifest.json").read_text())
            recorded(home, inputs=manifest["inputs"] | {"folder": "/tmp"})
        case "no signature":
            recorded(home, signature=None)
        case "a signature that is no text":
            recorded(home, signature=["x"])
        case "another key":
            key.write_bytes(bytes(32))
        case "no key":
            key.unlink()
        case "a key that others can read":
            key.chmod(0o644)
        case "a short key":
            key.write_bytes(b"x")
        case "the file is gone":
            (home / "mine.py").unlink()
        case "no manifest":
            (run_dir / "manifest.json").unlink()
        case "a manifest that is no mapping":
            (run_dir / "manifest.json").write_text("[1]")
    assert not recorded_here(run_dir, values_sha256)


def test_where_no_key_can_be_kept_nothing_is_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert signature("0" * 64, {}) is None
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # as the specification of these folders has it
    monkeypatch.setenv("HOME", str(tmp_path))
    assert provenance.signature("0" * 64, {}) is not None
    assert (tmp_path / ".local/state/asgd-lab/key").exists()


def test_a_named_module_is_followed_to_what_it_imports_of_its_own_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {
        "own_tree/__init__.py": "",
        "own_tree/nets.py": "from . import parts\nfrom own_tree.deep.er import x\ndef make(): import own_late",
        "own_tree/parts.py": "from .deep import er\n",
        "own_tree/unused.py": "",
        "own_tree/deep/__init__.py": "",
        "own_tree/deep/er.py": "x = 1\nimport own_tree.nets\n",
        "own_late.py": "this is no Python",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("own_tree.nets")
    found = code_sources.used({"model": "own_tree.nets:make", "options": [{"like": "torch.nn:Linear", "ratio": "3:4"}]})
    assert {source["file"] for source in found.values()} == {
        str(tmp_path / name) for name in texts if name != "own_tree/unused.py"
    }
    assert code_sources.roots(found) == [str(tmp_path)]
    assert code_sources.changed(found) == []
    (tmp_path / "own_tree/parts.py").write_text("# changed\n")
    (tmp_path / "own_late.py").unlink()
    assert sorted(code_sources.changed(found)) == [
        f"the source of own_late, {tmp_path}/own_late.py, is gone",
        f"the source of own_tree.parts, {tmp_path}/own_tree/parts.py, has changed since",
    ]
