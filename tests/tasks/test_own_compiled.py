"""torch.compile with its default backend: as in a plain loop to the bit, or one line where there is no C++ compiler.

Generated code takes minutes to compile on a busy machine: both tests are of the whole enumeration, `make test-whole`.
The backends eager and aot_eager are among the classes of test_own_class.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.record.saved_model import final_params
from tests.whole import WHOLE

from .against_plain_pytorch import largest
from .own_real_classes import CompiledWhole
from .own_runs import ASGD, plain, stated

pytestmark = [
    pytest.mark.skipif(not WHOLE, reason="compiles for minutes; ASGD_LAB_WHOLE=1"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]
TRY = """
from asgd_lab.backends.build import build_task
from asgd_lab.errors import ScenarioError
from tests.tasks.own_real_classes import CompiledWhole
from tests.tasks.own_runs import stated
try:
    build_task(stated(CompiledWhole))
except ScenarioError as error:
    print(error.key, error)
"""


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")
def test_generated_code_trains_as_in_a_plain_loop_to_the_bit_and_real_workers_repeat(tmp_path: Path) -> None:
    before, model = plain(CompiledWhole)
    for backend in ("inline", "sim"):
        execute(stated(CompiledWhole, backend), tmp_path / backend)
        after = [each.detach() for each in model.parameters()]
        assert largest(before, after, final_params(tmp_path / backend)) == 0.0
    real = stated(CompiledWhole, "process", algorithm=ASGD, workers=2, budget={"minibatches": 60})
    execute(real, tmp_path / "real")
    assert repeat(real, tmp_path / "real").difference is None


def test_without_a_compiler_it_is_refused_in_a_line_before_the_start(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", TRY], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
        env={**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    (line,) = told.stdout.splitlines()
    assert line.startswith("task.task tests.tasks.own_real_classes:CompiledWhole.loss raised InductorError: ")
    assert line.endswith("install g++ or set CXX, or compile with backend='aot_eager'")
