"""Section 7: what is predicted from one calibrated worker, beside what 4 and 8 workers on one GPU do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asgd_lab import prediction
from asgd_lab.scenario import Document
from tests.gpu import networks
from tests.gpu.place import Place

KEPT = (
    *("predicted", "measured_mean", "measured_low", "measured_high", "repeats", "error", "saturated"),
    *("server_utilisation", "staleness_predicted", "staleness_measured", "machine_load"),
)


def measure(place: Place, folder: Path) -> Iterator[dict[str, Any]]:
    """A row of the comparison a number of workers: speed-ups, the relative error, mean staleness."""
    prediction.CALIBRATION_S, prediction.REFERENCE_S = place.size((1.0, 0.5), (0.3, 0.3))
    stated = {
        "name": "prediction", "task": networks.resnet(place) if place.gpu else networks.transformer(place),
        "algorithm": {"name": "asgd", "n_sync": 10}, "workers": 1, "budget": {"seconds": place.size(1.5, 0.5)},
        "backend": place.backend(), "sweep": {"workers": place.size([4, 8], [2])},
    }  # fmt: skip
    path = folder / "prediction.yaml"
    path.write_text(json.dumps(stated), encoding="utf-8")
    said: list[str] = []
    for row in prediction.compare([Document.read(path)], {}, folder / "out", repeats=1, say=said.append):
        facts = {name: value.item() if hasattr(value := row[name], "item") else value for name in KEPT}
        yield {"what": f"{row['workers']} workers, n_sync {row['n_sync']}", **facts}
    yield {"what": "calibration", "said": said[0]}
