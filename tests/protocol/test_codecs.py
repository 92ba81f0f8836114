"""Codecs: nothing that is kept back is lost, what they state is what links charge, and each backend sees the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from asgd_lab.backends.run import execute
from asgd_lab.protocol.codecs import Cast, Codec
from asgd_lab.record import tables
from tests.backends.scenarios import QUADRATIC, TIMING, scenario
from tests.outside.top_k import Sparse

integers = st.lists(st.integers(-1000, 1000), min_size=5, max_size=5)


@given(updates=st.lists(integers, min_size=1, max_size=12), share=st.floats(0.01, 1.0))
def test_what_was_sent_and_the_error_are_the_sum_of_the_updates_exactly_on_integers(
    updates: list[list[int]], share: float
) -> None:
    """Stich et al. 2018: sum of what was sent + e = sum of u."""
    codec, error, sent = Sparse(share), torch.zeros(5), torch.zeros(5)
    for update in updates:
        encoded = torch.tensor(update, dtype=torch.float32)
        size_bytes = codec.encode(encoded, [error])
        assert size_bytes == 8 * max(1, round(share * 5))
        assert int(encoded.count_nonzero()) * 8 <= size_bytes
        sent += encoded
    assert torch.equal(sent + error, torch.tensor(updates, dtype=torch.float32).sum(0))


@given(update=integers)
def test_sending_all_loses_nothing(update: list[int]) -> None:
    exact = torch.tensor(update, dtype=torch.float32)
    for codec, state in ((Codec(), []), (Sparse(1.0), [torch.zeros(5)]), (Cast(torch.float16), [])):
        encoded = exact.clone()
        codec.encode(encoded, state)
        assert torch.equal(encoded, exact), "integers up to 1000 have a place in float16"


@pytest.mark.parametrize(("codec", "size_bytes"), [(None, 1000), ({"name": "cast"}, 500), ("cast", 500)])
def test_a_links_time_goes_by_the_bytes_of_the_message(codec: Any, size_bytes: int, tmp_path: Path) -> None:
    """A kilobyte at a kilobyte a second takes a second up; half of it takes half; the fetch carries all of it."""
    algorithm = {"name": "asgd", "n_sync": 1, **({} if codec is None else {"codec": codec})}
    hardware = {"link": {"bandwidth_bytes_per_s": 1000.0}}
    stated = scenario(task=TIMING, algorithm=algorithm, hardware=hardware, budget={"minibatches": 3}, backend="sim")
    execute(stated, tmp_path / "run")
    effects = tables.read(tmp_path / "run", "effects")
    for kind, size in (("up", size_bytes), ("down", 1000)):
        rows = effects[effects["kind"] == kind]
        assert set(rows["bytes"]) == {size}
        assert (rows["end_s"] - rows["start_s"]).tolist() == pytest.approx([size / 1000] * len(rows))
    assert set(effects[effects["kind"].isin(["push", "apply"])]["bytes"]) == {size_bytes}


@pytest.mark.parametrize("backend", ["sim", "process"])
def test_one_workers_codec_gives_the_same_bits_on_every_backend(backend: str, tmp_path: Path) -> None:
    sums = set()
    for name in ("inline", backend):
        codec = {"name": "tests.outside.top_k:TopK", "share": 0.3}
        stated = scenario(task=QUADRATIC, algorithm={"name": "asgd", "n_sync": 2, "codec": codec}, backend=name)
        summary = execute(stated, tmp_path / name)
        assert set(tables.read(tmp_path / name, "effects").query("kind == 'apply'")["bytes"]) == {8}
        sums.add(summary["params_sha256"])
    assert len(sums) == 1
