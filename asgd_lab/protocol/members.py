"""What the server keeps of each member, and what it objects to in a request; and the budget that ends a run."""

from __future__ import annotations

from dataclasses import dataclass

from asgd_lab.protocol.messages import FetchRequest, PushRequest


@dataclass(frozen=True, slots=True)
class Budget:
    """What ends a run, as far as the server can see it (a clock's budget is the backend's, which then closes)."""

    minibatches: int | None = None  # over all workers, exactly
    updates: int | None = None  # versions
    target_error: float | None = None  # of the training error that comes with the pushes,
    target_window: int = 50  # averaged over at least so many minibatches


@dataclass(slots=True, eq=False)
class Member:
    """A worker that is in."""

    incarnation: int
    sequence: int  # of its last push; incarnations go on counting
    taken: int  # minibatches that it has pushed or taken in vain, likewise
    clock: int  # rounds pushed; a joiner starts at the slowest member's
    owed: int = 0  # minibatches granted or allotted and not pushed yet
    allotted: int = 0  # of a collecting round: granted by the next fetch
    fetches: int = 0  # of this life
    fetching: bool = False
    pushing: bool = False


def objection_to_fetch(member: Member, request: FetchRequest) -> str:
    """What is wrong with a fetch that is refused."""
    worker, incarnation, number = request[:3]
    if incarnation != member.incarnation:
        return f"worker {worker} fetches as incarnation {incarnation}, not {member.incarnation}"
    if member.fetching or member.pushing:
        return f"worker {worker} fetches while it waits for an answer"
    if number != member.fetches + 1:
        return f"worker {worker} sends fetch {number}, not {member.fetches + 1}"
    return f"worker {worker} fetches ahead, and this gate holds workers back"


def objection_to_push(member: Member, push: PushRequest, version: int) -> str:
    """What is wrong with a push that is refused, while the newest version is this."""
    worker, incarnation, number, base, steps = push[:5]
    if incarnation != member.incarnation:
        return f"worker {worker} pushes as incarnation {incarnation}, not {member.incarnation}"
    if member.fetching or member.pushing:
        return f"worker {worker} pushes while it waits for an answer"
    if number != member.sequence + 1:
        return f"worker {worker} sends push {number}, not {member.sequence + 1}"
    if not 0 < steps <= member.owed - push.returned:
        return f"worker {worker} pushes {steps} minibatches and owes {member.owed - push.returned}"
    return f"worker {worker} pushes work on version {base} of {version}"
