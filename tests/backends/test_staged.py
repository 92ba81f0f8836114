"""A GPU worker's requests: in the order in which they were made, and none before the copy that it speaks of."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import deque
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from asgd_lab.backends.real.progress_words import Words
from asgd_lab.backends.real.transport import Told
from asgd_lab.backends.real.transports import staged
from asgd_lab.backends.real.transports.memory import Stack
from asgd_lab.backends.real.transports.staged import Staged
from asgd_lab.protocol.messages import FetchRequest, Grant, PushRequest, Request

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


class FakeEnd:
    """Knows what left and when: for a push, what lay in the mailbox then."""

    def __init__(self) -> None:
        self.mailboxes = [torch.zeros(LENGTH) for _ in range(31)]
        self.left: list[tuple[Request, list[float]]] = []
        self.inbox: deque[Told] = deque()

    def update(self, buffer: int) -> Tensor:
        return self.mailboxes[buffer]

    def send(self, message: Any, sent_ns: int = 0, received_ns: int = 0, behind: Any = None) -> None:
        content = self.mailboxes[message.buffer].tolist() if type(message) is PushRequest else []
        self.left.append((message, content))
        if behind is not None:
            self.left.append((behind, []))

    def has_news(self) -> bool:
        return bool(self.inbox)

    def hear(self) -> Told:
        return self.inbox.popleft()


def made(monkeypatch: pytest.MonkeyPatch, overlaps: bool) -> tuple[Staged, FakeEnd, Hand, Stack]:
    monkeypatch.setattr(staged, "Staging", Hand)
    slots = Stack("versions", 4, LENGTH)
    for slot in range(4):
        slots.vector(slot, writable=True).fill_(slot)
    end: Any = FakeEnd()
    words = Words(1).of(0)
    line: Any = Staged(
        end, torch.device("cpu"), LENGTH, lambda slot: slots.vector(slot, writable=True), overlaps, words
    )  # fmt: skip
    for buffer in range(31):
        line.update(buffer)
    return line, end, line.staging, slots


def fetch(number: int) -> FetchRequest:
    return FetchRequest(0, 1, number)


def push(number: int, buffer: int = 0) -> PushRequest:
    return PushRequest(0, 1, number, 0, 1, 0.0, 0.0, buffer)


def grant(number: int, slot: int) -> Grant:
    return Grant(0, 1, number, number, 1, slot)


@given(st.lists(st.sampled_from(["fetch", "push", "copied", "progress", "flush"]), max_size=30), st.booleans())
def test_requests_leave_in_order_and_after_their_copies(actions: list[str], overlaps: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        line, end, hand, slots = made(patch, overlaps)
        sent: list[tuple[Request, list[float]]] = []
        for number, action in enumerate(actions, 1):
            waited = len(hand.waited)
            if action == "fetch":
                sent.append((fetch(number), []))
                line.send(fetch(number))
            elif action == "push":
                buffer = number  # one that is free
                line.update(buffer).fill_(number)
                sent.append((push(number, buffer), [float(number)] * LENGTH))
                line.send(push(number, buffer))
            elif action == "copied" and hand.copies:
                hand.copies[-1].finish()
            elif action == "progress":
                line.progress()
                assert len(hand.waited) == waited, "it waits"
            elif action == "flush":
                line.flush()
                assert end.left == sent
            assert end.left == sent[: len(end.left)]
            if not overlaps:
                assert end.left == sent
        line.flush()
        assert end.left == sent
        slots.close()


def test_what_overlaps_waits_for_no_copy_until_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    line, end, hand, slots = made(monkeypatch, overlaps=True)
    line.send(push(1))
    line.send(fetch(1))
    line.progress()
    assert (end.left, hand.waited) == ([], [])
    hand.copies[0].finish()
    line.progress()
    assert [message for message, _ in end.left] == [push(1), fetch(1)]
    slots.close()


def test_a_granted_center_is_copied_before_it_is_asked_for_and_leaves_the_last_one_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line, end, hand, slots = made(monkeypatch, overlaps=True)
    line.send(fetch(1))
    first = line.center(grant(1, slot=1))
    assert first.tolist() == [1.0] * LENGTH
    line.send(fetch(2))
    line.progress()
    assert len(hand.copies) == 1
    end.inbox.append((grant(2, slot=2), 0, 0))
    line.progress()
    line.progress()
    assert len(hand.copies) == 2
    hand.copies[1].finish()
    assert first.tolist() == [1.0] * LENGTH, "the round that goes on is measured from it"
    assert line.hear()[0] == grant(2, slot=2)
    second = line.center(grant(2, slot=2))
    assert len(hand.copies) == 2
    assert (first.tolist(), second.tolist()) == ([1.0] * LENGTH, [2.0] * LENGTH)
    slots.close()


def test_a_center_that_is_not_the_one_copied_ahead_is_copied_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grant that a new server repeats may be of a fetch that was taken before."""
    line, end, _, slots = made(monkeypatch, overlaps=True)
    end.inbox.append((grant(1, slot=1), 0, 0))
    line.progress()
    assert line.center(grant(2, slot=3)).tolist() == [3.0] * LENGTH
    slots.close()


def test_a_new_life_begins_when_nothing_is_copied_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    line, end, hand, slots = made(monkeypatch, overlaps=True)
    line.send(push(1))
    line.begin()
    assert all(each.is_done for each in hand.copies)
    line.flush()
    assert end.left == [], "an earlier life's push is nobody's"
    slots.close()


def test_a_version_is_mapped_so_that_nobody_here_can_write_it() -> None:
    """In a process of its own, which the attempt ends."""
    code = (
        "import torch; from asgd_lab.backends.real.transports.memory import Stack; "
        "from asgd_lab.backends.real.transports.staged import Staged; from asgd_lab.protocol.messages import Grant; "
        "slots = Stack('versions', 1, 3); owner = slots.vector(0, writable=True); grant = Grant(0, 1, 1, 0, 1, 0); "
        "line = Staged(None, torch.device('cpu'), 3, lambda slot: slots.vector(slot, writable=True), False, None); "
        "owner.fill_(1); print(line.center(grant).tolist()); owner.fill_(2); "
        "print(line.center(grant).tolist(), flush=True); line._mapped[0].fill_(3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[1.0, 1.0, 1.0]", "[2.0, 2.0, 2.0]"], done.stderr
    assert done.returncode == -signal.SIGSEGV
