"""A short training gives the losses that it gave before, or the version of results is raised."""

from __future__ import annotations

import json
from pathlib import Path

from mm1.study.version import RESULTS_VERSION
from tests.train.golden.make_curve import FILE, differs, golden_curve


def test_losses_are_those_of_the_results_version(tmp_path: Path) -> None:
    golden = json.loads(FILE.read_text())
    curve = golden_curve(tmp_path)
    assert len(curve) == 60
    assert not differs(curve, golden["losses"]), (
        "the losses have changed: if that is meant, raise RESULTS_VERSION in mm1/study/version.py, say why there and "
        f"run `python -m tests.train.golden.make_curve` (here: {curve[:3]} ... {curve[-3:]})"
    )
    assert golden["results_version"] == RESULTS_VERSION, "run `python -m tests.train.golden.make_curve`"
