"""The page of Python names has every public one."""

from __future__ import annotations

import re

import asgd_lab
from tests.docs.fences import ROOT


def test_every_public_name_is_on_the_page_by_the_module_that_defines_it() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^::: (.+)$", page, flags=re.M))
    public = [getattr(asgd_lab, name) for name in asgd_lab.__all__ if name != "__version__"]
    assert {f"{each.__module__}.{each.__qualname__}" for each in public} <= told
