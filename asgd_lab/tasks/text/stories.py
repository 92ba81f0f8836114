"""A text that a seeded program writes: stories with a memory. The text is no natural language.

Each story introduces people, each with a town, a trade and a thing. Things are then passed on and people move, and
questions about both are answered some tens to some thousands of bytes later: a model that remembers more of a story
errs less. A story's words are drawn from its own generator, so any story can be written alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from asgd_lab.streams import key

_NAMES = (
    *("Ada", "Bela", "Cato", "Dora", "Emil", "Fanny", "Gero", "Hilda", "Ivo", "Jana", "Karl", "Lotte", "Milo", "Nora"),
    *("Otto", "Paula", "Rosa", "Siri", "Tilo", "Wanda"),
)
_TOWNS = (
    *("Aachen", "Bergen", "Calais", "Delft", "Erfurt", "Faro", "Gent", "Haarlem", "Imola", "Jena", "Kiel", "Lund"),
    *("Mainz", "Namur", "Oslo", "Parma", "Riga"),
)
_TRADES = (
    *("baker", "carpenter", "doctor", "fisher", "gardener", "judge", "miller", "painter", "sailor", "tailor"),
    *("teacher", "weaver"),
)
_THINGS = (
    *("apple", "book", "candle", "drum", "engine", "flute", "glass", "hammer", "kettle", "lamp", "mirror", "needle"),
    *("pearl", "ring", "spoon", "violin"),
)
_TURNS = (8, 40)  # of a story


def text(size_bytes: int, seed: int) -> bytes:
    """The first `size_bytes` bytes of the stories, a function of the seed."""
    found, length, number = [], 0, 0
    while length < size_bytes:
        found.append("".join(_story(random.Random(key(seed, "story", number)))))
        length, number = length + len(found[-1]), number + 1
    return "".join(found).encode("ascii")[:size_bytes]


def _story(draw: random.Random) -> Iterator[str]:
    people = draw.sample(_NAMES, draw.randint(2, 5))
    town = {name: draw.choice(_TOWNS) for name in people}
    trade = dict(zip(people, draw.sample(_TRADES, len(people)), strict=True))
    things = draw.sample(_THINGS, draw.randint(1, len(people)))
    owner = {thing: draw.choice(people) for thing in things}
    for name in people:
        yield f"{name} is a {trade[name]} in {town[name]}. "
    for thing, name in owner.items():
        yield f"{name} has the {thing}. "
    for _ in range(draw.randint(*_TURNS)):
        name, thing = draw.choice(people), draw.choice(things)
        match draw.randrange(5):
            case 0:
                town[name] = draw.choice(_TOWNS)
                yield f"{name} goes to {town[name]}. "
            case 1:
                giver, owner[thing] = owner[thing], name
                yield f"{giver} gives the {thing} to the {trade[name]}. "
            case 2:
                yield f"Where is {name}? In {town[name]}. "
            case 3:
                yield f"Who has the {thing}? {owner[thing]}, the {trade[owner[thing]]}. "
            case _:
                yield f"The {thing} is in {town[owner[thing]]}. "
    yield "\n\n"
