"""The scoreboard of the paper's lessons: every claim of the studies in one world with its verdict, judged together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from mm1.confidence import p_text
from mm1.errors import UserError
from mm1.files import write_text
from mm1.study.claim import Claim
from mm1.study.claims import Finding, Measured, verdicts
from mm1.study.schema import Study, load_study, packaged_studies, packaged_worlds
from mm1.study.store import StoredStudy, measured_claims, read_store


@dataclass(frozen=True)
class Lesson:
    """One study on the scoreboard.

    Attributes:
        study: The study.
        stored: Its stored results; None before there are any.
        rows: Each claim with its finding; None if it wasn't measured as it now stands.
    """

    study: Study
    stored: StoredStudy | None
    rows: tuple[tuple[Claim, Finding | None], ...]


def lesson_studies(world: str) -> list[Study]:
    """Return the packaged studies of a world, which share a scoreboard.

    Args:
        world: The first part of their names, such as `laptop`.

    Raises:
        UserError: If there is no such world.
    """
    if world not in (worlds := packaged_worlds()):
        raise UserError(f"there are no packaged studies '{world}/...': name one of {', '.join(worlds)}")
    return [load_study(name) for name in packaged_studies() if name.startswith(f"{world}/")]


def judged_lessons(studies: Sequence[Study], directory: Path) -> list[Lesson]:
    """Judge the claims of all studies together, from their stored results.

    Args:
        studies: The studies in the order of the table.
        directory: The directory of their files `NAME.json`.

    Raises:
        UserError: If a file isn't a study's results.
    """
    files = [directory / f"{study.name}.json" for study in studies]
    stored = [read_store(file) if file.is_file() else None for file in files]
    measured = [
        measured_claims(study, results) if results else [None] * len(study.claims)
        for study, results in zip(studies, stored, strict=True)
    ]
    findings = iter(verdicts([m for each in measured for m in each if m is not None]))
    lessons = []
    for study, results, each in zip(studies, stored, measured, strict=True):
        found = [next(findings) if isinstance(m, Measured) else None for m in each]
        lessons.append(Lesson(study, results, tuple(zip(study.claims, found, strict=True))))
    return lessons


def write_lessons(studies: Sequence[Study], directory: Path, world: str) -> Path:
    """Write `lessons-WORLD.md`: the paper's lesson, our claim, what it rests on, our measurement, the verdict.

    Args:
        studies: In the order of the table.
        directory: The directory of the studies' pages and results.
        world: Names the page.

    Returns:
        The page's path.

    Raises:
        UserError: If there are no results of any study, or a file isn't a study's results.
    """
    lessons = judged_lessons(studies, directory)
    stored = [lesson.stored for lesson in lessons if lesson.stored]
    if not stored:
        raise UserError(
            f"{directory}: there are no results of any study: make them with `mm1 study lessons {world}`, or "
            "name their directory with --to"
        )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mm1.study", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown
    )
    directory.mkdir(parents=True, exist_ok=True)
    page = directory / f"lessons-{world}.md"
    findings = [finding for lesson in lessons for _, finding in lesson.rows if finding]
    counts = {
        "claims": sum(len(lesson.rows) for lesson in lessons),
        "missing": sum(finding is None for lesson in lessons for _, finding in lesson.rows),
        "built_in": sum(finding.verdict == "built-in: not counted" for finding in findings),
        "wrong_unit": sum(finding.verdict == "undecided: wrong unit" for finding in findings),
        "unmeasured": sum(not finding.effects for finding in findings),
        "tested": [finding for finding in findings if finding.p_value is not None],
        "done": sum(each.runs for each in stored),
        "runs": sum(each.of for each in stored),
        "minutes": f"{sum(each.minutes for each in stored):.0f}",
    }
    write_text(
        page, environment.get_template("lessons.md").render(lessons=lessons, world=world, p_text=p_text, **counts)
    )
    return page
