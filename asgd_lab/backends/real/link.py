"""A worker's end of the control channel: what it has asked and not heard the answer of, said again if need be."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from time import monotonic_ns as now_ns

from asgd_lab.backends.real import channel
from asgd_lab.backends.real.channel import Answer, Ask, Request


class Over(Exception):
    """The run ended while this worker was at work: what it has not pushed is not counted."""


class Out(Exception):
    """This life is over: the worker was given up while it gave no sign of life, and may begin another."""


class Link:
    """Requests under way, by what they ask and their number, and the answers that were not waited for yet."""

    def __init__(self, end: socket.socket, save: Callable[[int], bool]) -> None:
        self._end, self._save = end, save
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)
        self.incarnation = 0
        self._asked: dict[tuple[int, int], Request] = {}
        self._answers: dict[tuple[int, int], Answer] = {}
        self._to_save: Answer | None = None

    def ask(self, request: Request) -> tuple[int, int]:
        """Send a request; what `wait` needs to know it by."""
        key = request.ask, request.number
        self._asked[key] = request
        self._send(request)
        return key

    def is_open(self, key: tuple[int, int]) -> bool:
        """Whether it was asked and not waited for."""
        return key in self._asked or key in self._answers

    def heard(self, key: tuple[int, int]) -> Answer | None:
        """The answer, if it has come by now; it is still to be waited for."""
        while key not in self._answers and self._poll.poll(0):
            self._listen()
        return self._answers.get(key)

    def wait(self, key: tuple[int, int]) -> Answer:
        """The answer. Meanwhile the worker may be told to save what it has, if this is all that it waits for."""
        while key not in self._answers:
            if self._to_save is not None and key[0] == Ask.FETCH and len(self._asked) == 1:
                told, self._to_save = self._to_save, None
                if self._save(told.number):
                    self._send(Request(Ask.SAVED, self.incarnation, told.number, now_ns(), detail=told.detail))
            self._listen()
        return self._answers.pop(key)

    def call(self, request: Request) -> Answer:
        """Ask and wait."""
        return self.wait(self.ask(request))

    def say(self, request: Request) -> None:
        """What needs no answer, if there is anybody to hear it."""
        with contextlib.suppress(Over):
            self._send(request)

    def begin(self) -> None:
        """Forget what an earlier life asked: it will not be answered."""
        self._asked.clear()
        self._answers.clear()
        self._to_save = None

    def _send(self, request: Request) -> None:
        try:
            channel.ask(self._end, request)
        except (BrokenPipeError, ConnectionResetError):
            raise Over from None

    def _listen(self) -> None:
        answer = channel.await_answer(self._end)
        if answer is None:
            raise Over
        if answer.to == Ask.AGAIN:
            self._send(Request(Ask.AGAIN, self.incarnation, 0, now_ns()))
            for request in self._asked.values():
                self._send(request)
        elif answer.to == Ask.OUT:
            if answer.incarnation == self.incarnation:
                raise Out
        elif answer.to == Ask.SAVE:
            self._to_save = answer
        elif self._asked.pop((answer.to, answer.number), None) is not None:  # else an answer heard twice
            self._answers[answer.to, answer.number] = answer
