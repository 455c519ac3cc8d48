"""The version of results: which runs may stand for one another.

It is raised by hand when the same recipe gives other results than before: other losses, other scores or other
answers. Tidying raises nothing. `tests/train/test_golden_curve.py` fails where a training changes and the version
does not.
"""

from __future__ import annotations

RESULTS_VERSION = 1
"""Part of the name of every run of a study.

History:
    1: The code of the committed results (docs/results, November 2026).
"""

_FIRST = "3e7ec77a6dda9d34f8b8d5ee72a1c36d"
"""What version 1 is called in names: a hash of its code, by which runs were named before there were versions."""


def results_token() -> str:
    """Return what the version is called in a run's name."""
    return _FIRST if RESULTS_VERSION == 1 else str(RESULTS_VERSION)
