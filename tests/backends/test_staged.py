"""A GPU worker's requests: in the order in which they were made, and none before the copy that it speaks of."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from asgd_lab.backends.real import staged
from asgd_lab.backends.real.channel import Answer, Ask, Request
from asgd_lab.backends.real.memory import Stack
from asgd_lab.backends.real.staged import Key, Staged

LENGTH = 3


class ByHand:
    """A copy that is done when the test says so, or when it is waited for."""

    def __init__(self, source: Tensor, target: Tensor, waited: list[ByHand]) -> None:
        self.source, self.target, self.is_done = source, target, False
        self.waited = waited  # those of all copies that somebody had to wait for

    def finish(self) -> None:
        if not self.is_done:
            self.target.copy_(self.source)
            self.is_done = True

    def done(self) -> bool:
        return self.is_done

    def wait(self) -> None:
        if not self.is_done:
            self.waited.append(self)
        self.finish()


class Hand:
    """In the place of `Staging`."""

    def __init__(self, device: torch.device) -> None:
        self.copies: list[ByHand] = []
        self.waited: list[ByHand] = []

    def to_host(self, source: Tensor, host: Tensor) -> ByHand:
        self.copies.append(ByHand(source, host, self.waited))
        return self.copies[-1]

    def to_device(self, host: Tensor, target: Tensor) -> ByHand:
        return self.to_host(host, target)


class FakeLink:
    """Knows what left and when: for a push, what lay in the mailbox then."""

    def __init__(self, mailboxes: list[Tensor]) -> None:
        self.mailboxes = mailboxes
        self.left: list[tuple[Key, list[float]]] = []
        self.granted: dict[Key, Answer] = {}

    def ask(self, request: Request) -> Key:
        key = request.ask, request.number
        content = self.mailboxes[request.detail].tolist() if request.ask == Ask.PUSH else []
        self.left.append((key, content))
        return key

    def heard(self, key: Key) -> Answer | None:
        return self.granted.get(key)

    def wait(self, key: Key) -> Answer:
        assert key in [each for each, _ in self.left], "it waits for what was never sent"
        return self.granted.get(key, Answer(*key, incarnation=1, version=1, detail=0, steps=1))


def made(monkeypatch: pytest.MonkeyPatch, overlaps: bool) -> tuple[Staged, FakeLink, Hand, Stack]:
    monkeypatch.setattr(staged, "Staging", Hand)
    slots = Stack("versions", 4, LENGTH)
    for slot in range(4):
        slots.vector(slot, writable=True).fill_(slot)
    link = FakeLink([torch.zeros(LENGTH) for _ in range(31)])
    line: Any = Staged(link, torch.device("cpu"), slots, overlaps)  # type: ignore[arg-type]
    return line, link, line.staging, slots


@given(st.lists(st.sampled_from(["fetch", "push", "copied", "look", "flush"]), max_size=30), st.booleans())
def test_requests_leave_in_order_and_after_their_copies(actions: list[str], overlaps: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        line, link, hand, slots = made(patch, overlaps)
        asked: list[tuple[Key, list[float]]] = []
        for number, action in enumerate(actions, 1):
            waited = len(hand.waited)
            if action == "fetch":
                asked.append((line.ask(Request(Ask.FETCH, 1, number, 0)), []))
            elif action == "push":
                buffer = number  # one that is free
                update = torch.full((LENGTH,), float(number))
                key = line.push(Request(Ask.PUSH, 1, number, 0, detail=buffer), update, link.mailboxes[buffer])
                asked.append((key, update.tolist()))
            elif action == "copied" and hand.copies:
                hand.copies[-1].finish()
            elif action == "look":
                line.look()
                assert len(hand.waited) == waited, "it waits"
            elif action == "flush":
                line.flush()
                assert link.left == asked
            assert link.left == asked[: len(link.left)]
            if not overlaps:
                assert link.left == asked
        line.flush()
        assert link.left == asked
        slots.close()


def test_what_overlaps_waits_for_no_copy_until_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    line, link, hand, slots = made(monkeypatch, overlaps=True)
    push = line.push(Request(Ask.PUSH, 1, 1, 0), torch.ones(LENGTH), link.mailboxes[0])
    fetch = line.ask(Request(Ask.FETCH, 1, 1, 0))
    line.look()
    assert (link.left, hand.waited) == ([], [])
    hand.copies[0].finish()
    line.look()
    assert [key for key, _ in link.left] == [push, fetch]
    slots.close()


def test_a_granted_center_is_copied_before_it_is_asked_for_and_leaves_the_last_one_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line, link, hand, slots = made(monkeypatch, overlaps=True)
    line.wait(line.ask(Request(Ask.FETCH, 1, 1, 0)))
    first = line.center(1)
    assert first.tolist() == [1.0] * LENGTH
    fetch = line.ask(Request(Ask.FETCH, 1, 2, 0))
    line.look()
    assert len(hand.copies) == 1
    link.granted[fetch] = Answer(*fetch, incarnation=1, version=2, detail=2, steps=1)
    line.look()
    line.look()
    assert len(hand.copies) == 2
    hand.copies[1].finish()
    assert first.tolist() == [1.0] * LENGTH, "the round that goes on is measured from it"
    line.wait(fetch)
    second = line.center(2)
    assert len(hand.copies) == 2
    assert (first.tolist(), second.tolist()) == ([1.0] * LENGTH, [2.0] * LENGTH)
    slots.close()


def test_a_new_life_begins_when_nothing_is_copied_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    line, link, hand, slots = made(monkeypatch, overlaps=True)
    line.push(Request(Ask.PUSH, 1, 1, 0), torch.ones(LENGTH), link.mailboxes[0])
    line.begin()
    assert all(each.is_done for each in hand.copies)
    line.flush()
    assert link.left == [], "an earlier life's push is nobody's"
    slots.close()


def test_a_version_is_mapped_so_that_nobody_here_can_write_it() -> None:
    """In a process of its own, which the attempt ends."""
    code = (
        "import torch; from asgd_lab.backends.real.memory import Stack; "
        "from asgd_lab.backends.real.staged import Staged; slots = Stack('versions', 1, 3); "
        "owner = slots.vector(0, writable=True); line = Staged(None, torch.device('cpu'), slots, False); "
        "owner.fill_(1); print(line.center(0).tolist()); owner.fill_(2); print(line.center(0).tolist(), flush=True); "
        "line._mapped[0].fill_(3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[1.0, 1.0, 1.0]", "[2.0, 2.0, 2.0]"], done.stderr
    assert done.returncode == -signal.SIGSEGV
