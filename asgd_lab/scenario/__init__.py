"""Scenarios: from a YAML file to frozen, validated values; every error names file, line, key. No torch here."""

from asgd_lab.scenario.anchoring import anchored, folders
from asgd_lab.scenario.document import Document, as_assignment, parse_assignment
from asgd_lab.scenario.identity import first_difference, values_sha256
from asgd_lab.scenario.points import Point, Points
from asgd_lab.scenario.schema import Name, Scenario, json_schema

__all__ = [
    "Document",
    "Name",
    "Point",
    "Points",
    "Scenario",
    "anchored",
    "as_assignment",
    "first_difference",
    "folders",
    "json_schema",
    "parse_assignment",
    "values_sha256",
]
