"""The scoreboard of the paper's lessons: every claim of the laptop studies with its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from mm1.errors import UserError
from mm1.files import write_text
from mm1.study.claims import Finding
from mm1.study.plan import StudyRun, distinct, minutes_of
from mm1.study.report import findings
from mm1.study.results import read_study
from mm1.study.schema import Claim, Study, load_study, packaged_studies

LAPTOP = "laptop/"
"""Prefix of the studies on the scoreboard."""


@dataclass(frozen=True)
class Lesson:
    """One study on the scoreboard.

    Attributes:
        study: The study.
        runs: Its planned runs.
        rows: Each claim with its finding; None as long as one of its runs is missing.
    """

    study: Study
    runs: tuple[StudyRun, ...]
    rows: tuple[tuple[Claim, Finding | None], ...]

    @property
    def done(self) -> int:
        """The number of runs that are done."""
        return sum(run.seconds is not None for run in self.runs)


def lesson_studies() -> list[Study]:
    """Return the studies on the scoreboard."""
    return [load_study(name) for name in packaged_studies() if name.startswith(LAPTOP)]


def lesson(study: Study, runs: Sequence[StudyRun]) -> Lesson:
    """Test a study's claims with the runs that are done.

    Args:
        study: The study.
        runs: Its planned runs.

    Raises:
        UserError: If two runs were scored differently.
    """
    any_done = any(run.seconds is not None for run in runs)
    by_claim = {f.claim.claim: f for f in findings(study, read_study(runs))} if any_done else {}
    return Lesson(study, tuple(runs), tuple((claim, by_claim.get(claim.claim)) for claim in study.claims))


def write_lessons(lessons: Sequence[Lesson], directory: Path) -> Path:
    """Write `lessons.md`: the paper's lesson, our claim, our measurement, the verdict.

    Args:
        lessons: In the order of the table.
        directory: The directory of the studies' pages.

    Returns:
        The page's path.

    Raises:
        UserError: If no run of any study is done.
    """
    if not any(lesson.done for lesson in lessons):
        raise UserError(f"{directory}: no run of any study is done: make them with `mm1 study lessons`")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mm1.study", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown
    )
    directory.mkdir(parents=True, exist_ok=True)
    page = directory / "lessons.md"
    runs = distinct(run for lesson in lessons for run in lesson.runs)
    counts = {
        "done": sum(run.seconds is not None for run in runs),
        "runs": len(runs),
        "minutes": f"{minutes_of(runs):.0f}",
    }
    write_text(page, environment.get_template("lessons.md").render(lessons=lessons, **counts))
    return page
