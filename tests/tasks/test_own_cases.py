"""The table of what researchers bring says what its cases show, and nothing else."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.outside import own_cases
from tests.outside.own_cases import ABOUT, CASES, COLUMNS, TABLE, TOLD, WITHOUT, Case, row, rows_of
from tests.outside.own_trials import lines_of_case, tried
from tests.whole import WHOLE, sample

SLOW = ("torch.compile", "ResNet", "GPT-2", "Llama", "300 layers")  # minutes on a busy machine
QUICK = [case for case in CASES if WHOLE or not case.name.startswith(SLOW)]
LISTED = (
    "GPT on bytes", "GPT-2", "Llama", "ResNet-18 on a folder", "LoRA on a frozen body", "packed LSTM", "segmentation",
    "contrastive", "GAN", "CSV", "memory-mapped tokens", "stream with state", "bf16 autocast", "weight_norm", "EMA",
)  # fmt: skip
REFUSED = ("LBFGS", "LazyModule")
CELLS = {
    "lines": r"[1-9]\d*",
    "sim": r"0|\d\.\de-\d\d|refused: .+",
    "process": r"0|\d\.\de-\d\d|",
    "replayed": "same bits|other bits|",
    "resumed": "same bits|other bits|refused: .+|",
    "batched": r"yes|one by one|other numbers: \d\.\de-\d\d|",
}


def rows() -> dict[str, dict[str, str]]:
    """The table's cells, by case and column."""
    found = rows_of(TABLE.read_text(encoding="utf-8"))
    return {name: dict(zip(COLUMNS, cells, strict=True)) for name, cells in found.items()}


def test_the_table_has_every_case_and_says_what_made_it() -> None:
    text, found = TABLE.read_text(encoding="utf-8"), rows()
    assert list(found) == [case.name for case in CASES], "run `python -m tests.outside.own_cases`"
    assert text.startswith(own_cases.filled(ABOUT))
    assert text.endswith(own_cases.filled(WITHOUT))
    assert own_cases.counted(rows_of(text).values()) in text
    assert re.search(r"^Tried with asgd_lab \d\S* \(source [0-9a-f]{12}\), python 3.*, torch \d", text, re.MULTILINE)


@pytest.mark.parametrize("name", LISTED)
def test_a_case_that_the_task_was_built_for_has_the_bits_of_a_plain_loop_everywhere(name: str) -> None:
    (found,) = [cells for case, cells in rows().items() if case.startswith(name)]
    assert (found["sim"], found["process"], found["replayed"], found["resumed"]) == ("0", "0", "same bits", "same bits")


@pytest.mark.parametrize("name", REFUSED)
def test_a_case_that_cannot_be_trained_has_its_refusal(name: str) -> None:
    (found,) = [cells for case, cells in rows().items() if case.startswith(name)]
    assert re.fullmatch(r"refused: tests\.tasks\.own_classes:\w+\.(optimizer|model) .+", found["sim"])


def test_every_cell_is_told_as_told_or_of_the_form_that_a_trial_gives(tmp_path: Path) -> None:
    assert {case.told for case in CASES} == TOLD
    assert {case.name for case in CASES if case.listed} == {
        case.name for case in CASES if case.name.startswith((*LISTED, *REFUSED))
    }
    for number, case in enumerate(CASES):
        if "Hugging Face" in case.name and find_spec("transformers") is None:
            continue
        cells = rows()[case.name]
        assert cells[COLUMNS[1]] == case.told
        (folder := tmp_path / str(number)).mkdir()
        assert cells["lines"] == str(lines_of_case(case.brought, folder))
        for column, form in CELLS.items():
            assert re.fullmatch(form, cells[column]), (case.name, column, cells[column])
        is_refused = cells["sim"].startswith("refused")
        assert all((cells[each] == "") is is_refused for each in ("process", "replayed", "resumed", "batched"))


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.xdist_group("process")
@pytest.mark.parametrize("case", sample(QUICK, 1), ids=lambda case: case.name)
def test_the_table_says_what_a_case_shows(tmp_path: Path, case: Case) -> None:
    if "Hugging Face" in case.name:
        pytest.importorskip("transformers")
    found = rows_of(f"| case |\n| --- |\n{row(case, tried(case.brought, case.parts, tmp_path))}")
    assert found == {case.name: list(rows()[case.name].values())}
