"""Kept records of an earlier version, replayed on whatever machine the tests run on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asgd_lab.record.machine import arithmetic
from tests.cli.harness import Said, asgd_lab


def repeated(record: Path) -> Said:
    """The replay of a record, with the same bits; a skip where the machine computes others, and the replay says so."""
    said = asgd_lab("replay", record)
    if said.status == 1:
        recorded = json.loads((record / "manifest.json").read_text(encoding="utf-8"))["arithmetic"]
        here = arithmetic()
        assert recorded["instructions"] != here["instructions"], said
        told = f"instructions {recorded['instructions']} there, {here['instructions']} here"
        assert "recorded elsewhere: " in said.err, said
        assert told in " ".join(said.err.split())
        pytest.skip(f"other bits are right here: {told}")
    assert said.status == 0, said
    return said
