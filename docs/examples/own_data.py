"""A model of one's own, and a program that writes a table of samples for it."""

import csv
import random

from torch import nn


def two_layers(num_classes: int, width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, num_classes))


def write(file: str, lines: int = 400) -> None:
    """Two columns of numbers, a kind that depends on them, and the garden that a flower is from."""
    drawn = random.Random(0)
    with open(file, "w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["length", "breadth", "garden", "kind"])
        for _ in range(lines):
            kind = drawn.randrange(3)
            garden = f"garden {drawn.randrange(10)}"
            writer.writerow([round(drawn.gauss(kind, 0.3), 3), round(drawn.gauss(-kind, 0.3), 3), garden, kind])


if __name__ == "__main__":
    write("flowers.csv")
