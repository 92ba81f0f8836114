"""Every preset says where each of its numbers is from; what a scenario gives stays, and presets fill the rest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from asgd_lab.errors import ScenarioError
from asgd_lab.scenario import Document, Scenario, json_schema, presets
from asgd_lab.scenario.hardware import Hardware
from tests.scenario.bad_scenarios import TIMING, edited

NAMES = presets.names()
SCENARIO = {
    "name": "study",
    "task": {"name": "quadratic", "curvature": [1.0]},
    "algorithm": {"name": "asgd", "n_sync": 1},
    "workers": 16,
    "budget": {"updates": 1},
}


def hardware(**given: Any) -> Hardware:
    return Hardware.model_validate(given)


def scenario(**given: Any) -> Scenario:
    return Scenario.model_validate(SCENARIO | {"hardware": given})


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def written(**lines: str) -> Document:
        path = tmp_path / "study.yaml"
        path.write_text(edited(**lines))
        return Document.read(path)

    return written


def test_the_machines_that_studies_are_about_are_there() -> None:
    assert set(NAMES) >= {
        *("blue-waters-k20x", "paine-2013-software", "a100-node", "h100-node", "h200-node", "laptop"),
        *("ethernet-100g", "infiniband-hdr", "infiniband-ndr", "wan-two-sites"),
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_what_it_is_and_nothing_else_is_in_its_file(name: str) -> None:
    preset = presets.read(name)
    assert preset.name == name
    assert preset.description.endswith(".")
    assert 20 < len(preset.description) < 400
    text = (presets.FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert re.findall(r"^(\w+):", text, re.MULTILINE) == ["description", "hardware", "sources"]
    assert "preset" not in preset.hardware


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_a_source_and_every_source_a_number(name: str) -> None:
    preset = presets.read(name)
    stated = {key for key, value in presets.leaves(preset.hardware) if isinstance(value, int | float)}
    assert set(preset.sources) == stated


@pytest.mark.parametrize("name", NAMES)
def test_a_source_begins_with_a_grade_and_says_more(name: str) -> None:
    for key, source in presets.read(name).sources.items():
        grade, colon, words = source.partition(": ")
        assert grade in presets.GRADES, key
        assert colon, key
        assert len(words) > 10, key
        assert source.endswith("."), key


def test_what_a_source_refers_to_is_there() -> None:
    for name in NAMES:
        sources = presets.read(name).sources
        for key, source in sources.items():
            for other in re.findall(r"\bas (?:for )?((?:[a-z]+\.)?[a-z]+_[a-z_]+)", source):
                assert {other, f"{key.rpartition('.')[0]}.{other}"} & set(sources), (name, key, other)
            for other in re.findall(r"\bsee ([a-z0-9-]+-[a-z0-9-]+)", source):
                assert other in NAMES, (name, key, other)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_good_hardware_alone_and_in_a_scenario(name: str) -> None:
    preset = presets.read(name)
    alone = Hardware.model_validate(preset.hardware)
    named = hardware(preset=name)
    assert named.model_dump(exclude={"preset"}) == alone.model_dump(exclude={"preset"})
    assert scenario(preset=name).hardware == named
    jsonschema.Draft202012Validator(json_schema()).validate(SCENARIO | {"hardware": preset.hardware})
    jsonschema.Draft202012Validator(json_schema()).validate(SCENARIO | {"hardware": {"preset": name}})


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_gives_what_nothing_but_null_must_take_away(name: str) -> None:
    given = dict(presets.leaves(presets.read(name).hardware))
    assert "compute.cv" not in given  # which would forbid a scenario's distribution constant
    for compute in ({"distribution": "constant"}, {"distribution": "gamma", "cv": 0.3}, {"samples_s": [1.0]}):
        distribution = {"distribution": "empirical"} if "samples_s" in compute else {}
        hardware(preset=name, compute={"step_s": 1.0} | compute | distribution)


NODES = [name for name in NAMES if name.endswith("-node")]
NETWORKS = [name for name in NAMES if name.startswith(("ethernet-", "infiniband-"))]
STACKS = [
    *([name] for name in NAMES),
    *(["blue-waters-k20x", "paine-2013-software"], ["laptop", "wan-two-sites"]),
    *([node, network] for node in NODES for network in NETWORKS),
    *([node, network, "wan-two-sites"] for node in NODES for network in NETWORKS),
]


@pytest.mark.parametrize("chosen", STACKS, ids="+".join)
def test_a_scenario_of_presets_reads_back_equal(chosen: list[str], tmp_path: Path) -> None:
    resolved = scenario(preset=chosen)
    path = tmp_path / "scenario.yaml"
    path.write_text(Document.dump(resolved), encoding="utf-8")
    again = Document.read(path).scenario()
    assert again == resolved
    assert again.hardware.preset == chosen
    assert Document.dump(again) == path.read_text(encoding="utf-8")


def test_a_later_preset_goes_over_an_earlier_one_key_by_key() -> None:
    both = hardware(preset=["h100-node", "infiniband-ndr"])
    node, network = presets.read("h100-node").hardware, presets.read("infiniband-ndr").hardware
    assert both.server.push_bytes_per_s == node["server"]["push_bytes_per_s"]
    assert both.server.bandwidth_bytes_per_s == network["server"]["bandwidth_bytes_per_s"]
    assert both.link.bandwidth_bytes_per_s == network["link"]["bandwidth_bytes_per_s"]
    assert both.host.workers == 8
    slower = hardware(preset=["h100-node", "infiniband-ndr", "infiniband-hdr"])
    assert slower.link.bandwidth_bytes_per_s == 25e9
    assert hardware(preset=["infiniband-hdr", "infiniband-ndr"]).link.bandwidth_bytes_per_s == 50e9
    assert hardware(preset=["a100-node", "h200-node"]).device.memory_bytes == 141_000_000_000


def test_what_a_scenario_gives_stays() -> None:
    mine = hardware(preset="h100-node", staging={"latency_s": 1.0}, device={"workers": 2}, client={"push_s": 3.0})
    assert (mine.staging.latency_s, mine.staging.to_host_bytes_per_s) == (1.0, 63e9)
    assert (mine.device.workers, mine.device.memory_bytes, mine.device.vectors) == (2, 80_000_000_000, 4)
    assert mine.client.push_s == 3.0


def test_null_takes_a_presets_value_away() -> None:
    bare = hardware(preset="h100-node", device={"memory_bytes": None}, staging={"to_host_bytes_per_s": None})
    assert bare.device.memory_bytes is None
    assert bare.staging.to_host_bytes_per_s is None
    assert bare.staging.to_device_bytes_per_s == 63e9
    software = hardware(preset=["blue-waters-k20x", "paine-2013-software"])
    assert software.server.one_sided_fetch
    assert software.server.fetch_bytes_per_s is None
    two_ways = {"bandwidth_bytes_per_s": None, "up_bytes_per_s": 1.0, "down_bytes_per_s": 2.0}
    mine = hardware(preset="infiniband-ndr", link=two_ways)
    assert (mine.link.up, mine.link.down) == (1.0, 2.0)


def test_a_list_is_replaced_as_a_whole() -> None:
    groups = [{"name": "far", "workers": 2}, {"name": "near", "workers": 14}]
    mine = scenario(preset="wan-two-sites", groups=groups).hardware
    assert [group.workers for group in mine.groups] == [2, 14]
    assert [(link.group, link.latency_s) for link in mine.links] == [("far", 0.04)]
    assert scenario(preset="wan-two-sites", groups=[], links=[]).hardware.groups == []


def test_no_preset_is_none() -> None:
    assert hardware(preset=None) == hardware() == hardware(preset=[]).model_copy(update={"preset": None})


def test_merging_leaves_presets_as_they_were() -> None:
    before = {name: list(presets.leaves(presets.read(name).hardware)) for name in NAMES}
    hardware(preset=["h100-node", "infiniband-ndr"], server={"push_s": 5.0}, host={"workers": 1})
    assert {name: list(presets.leaves(presets.read(name).hardware)) for name in NAMES} == before


def test_a_preset_can_be_set_and_swept_and_its_values_over_it(write: Any) -> None:
    document = write(task=TIMING, backend="backend: sim", hardware="")
    set_ = document.scenario({"hardware.preset": ["h100-node", "infiniband-ndr"]}).hardware
    assert set_ == hardware(preset=["h100-node", "infiniband-ndr"])
    document = write(
        task=TIMING,
        backend="backend: sim",
        hardware="hardware: {preset: h100-node}",
        sweep="sweep: {hardware.preset: [h100-node, [a100-node, infiniband-hdr]], hardware.server.push_s: [0.5]}",
    )
    one, two = document.points({"hardware.staging.latency_s": 0.25})
    assert two.name == "hardware.preset=[a100-node,infiniband-hdr],hardware.server.push_s=0.5"
    assert (one.scenario.hardware.device.memory_bytes, two.scenario.hardware.link.up) == (80_000_000_000, 25e9)
    for point, to_host in ((one, 63e9), (two, 25e9)):
        staging = point.scenario.hardware.staging
        assert (staging.latency_s, staging.to_host_bytes_per_s) == (0.25, to_host)
        assert point.scenario.hardware.server.push_s == 0.5


def test_an_error_in_what_a_preset_gives_names_the_preset(write: Any) -> None:
    document = write(task=TIMING, backend="backend: sim", hardware="hardware:\n  preset: blue-waters-k20x")
    with pytest.raises(ScenarioError) as caught:
        document.scenario()
    line, end = f"{document.path}:8: hardware.compute.step_s: must be", "; preset 'blue-waters-k20x' gives it"
    assert str(caught.value).startswith(line)
    assert str(caught.value).endswith(end)
    assert document.scenario({"hardware.compute.step_s": None}).hardware.compute.step_s is None
    with pytest.raises(ScenarioError) as caught:
        document.points({"hardware.compute.step_s": 3.0})
    assert "gives it" not in str(caught.value)


def test_a_vector_of_the_paper_is_synchronised_in_a_fraction_of_a_second_by_hardware_alone() -> None:
    """Two copies, two transfers, one addition of 243,860,896 bytes: the hardware does not explain 161 s."""
    size_bytes, machine = 243_860_896, hardware(preset="blue-waters-k20x")
    rates = (
        *(machine.staging.to_host_bytes_per_s, machine.staging.to_device_bytes_per_s, machine.link.up),
        *(machine.link.down, machine.server.push_bytes_per_s, machine.server.fetch_bytes_per_s),
    )
    assert sum(size_bytes / rate for rate in rates if rate is not None) == pytest.approx(0.176, abs=0.001)


@pytest.mark.parametrize(
    ("name", "passes"), [("paine-2013-software", 90), ("paine-2013-75-passes", 75), ("paine-2013-71-passes", 71.3)]
)
def test_the_fitted_software_takes_the_days_of_the_paper(name: str, passes: float) -> None:
    """22 passes over 1,281,167 images, 128 a minibatch, in 3.3 days (Paine et al. 2013), as 8 clients do not queue."""
    machine = hardware(preset=["blue-waters-k20x", name])
    assert machine.compute.step_s is not None
    computing = 600 * machine.compute.step_s
    round_s = computing + machine.client.push_s + machine.client.fetch_s + machine.server.push_s
    assert 8 * machine.server.push_s < round_s
    assert (round_s < 16 * machine.server.push_s) == (passes == 90)
    assert round_s / 600 * 22 * 1_281_167 / 128 / 86_400 == pytest.approx(3.3, abs=0.005)
    assert machine.compute.step_s * passes * 1_281_167 / 128 / 86_400 == pytest.approx(10.7, abs=0.005)
