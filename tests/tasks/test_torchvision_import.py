"""A user's module may import torchvision as it would anywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

USERS = [
    "import torchvision\ndef make(num_classes): return torchvision.models.squeezenet1_1(num_classes=num_classes)",
    "from torchvision.models import squeezenet1_1 as make",
    "def make(num_classes):\n    import torchvision.models as m\n    return m.squeezenet1_1(num_classes=num_classes)",
]
TRIES = (
    "import sys; import asgd_lab.tasks.code_imports as u; assert 'torchvision' not in sys.modules;"
    "print(sum(p.numel() for p in u.imported('task.model', 'theirs:make', '')(num_classes=3).parameters()) > 0)"
)


@pytest.mark.parametrize("code", USERS, ids=["module", "names", "late"])
def test_a_users_module_imports_torchvision(tmp_path: Path, code: str) -> None:
    (tmp_path / "theirs.py").write_text(code)
    done = subprocess.run([sys.executable, "-c", TRIES], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "True\n", done.stderr[-2000:]
