"""A study's results as one small JSON file, which can be committed and judged again without the runs.

It has the scores of every arm by seed, and for every claim its effects by seed with the variance that comes from the
items. That is all that a test needs, at any minimum and with any correction. A new claim needs the runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError

from mm1.errors import UserError
from mm1.files import write_text
from mm1.recipe import Section
from mm1.study.claim import Measure, Unit
from mm1.study.claims import Effect, Measured
from mm1.study.results import Floats, Results, Scores
from mm1.study.schema import Study

FROM_RUNS = "runs"


class StoredEffect(Section):
    """An effect (`mm1.study.claims.Effect`)."""

    name: str
    by_seed: list[float]
    items_variance: float
    items: int
    measure: Measure


class StoredClaim(Section):
    """What was measured for a claim."""

    claim: str
    question: dict[str, Any] = Field(description="The claim's keys that the effects depend on.")
    effects: list[StoredEffect]
    beside: list[StoredEffect] = Field([])


class StoredScores(Section):
    """The scores of one arm on one task at one number of shots."""

    arm: dict[str, str]
    task: str
    shots: int
    items: int
    measure: Measure
    by_seed: list[float | None]
    swapped: list[float | None] | None = None


class StoredStudy(Section):
    """The file."""

    study: str
    read_from: str = Field(FROM_RUNS, description="The runs; or the page that the effects were read from.")
    seeds: list[int]
    looks: int = 1
    units: list[Unit] = Field(description="What each seed has of its own.")
    runs: int = Field(description="Number of runs that were done.")
    of: int = Field(description="Number of runs of the study.")
    minutes: float
    made: str = Field("", description="Machines, version of results, commits.")
    claims: list[StoredClaim]
    scores: list[StoredScores] = Field([])


@dataclass(frozen=True)
class Counts:
    """What a study's runs came to: how many are done of how many, their minutes, and where they were made."""

    runs: int
    of: int
    minutes: float
    made: str


def write_store(study: Study, results: Results, measured: Sequence[Measured], counts: Counts, file: Path) -> None:
    """Write a study's results.

    Args:
        study: The study.
        results: Its results.
        measured: Its measured claims.
        counts: What the runs came to.
        file: The file.

    Raises:
        UserError: If seeds were added to results that are there, and the study doesn't name that look.
    """
    if file.is_file():
        _refuse_silent_looks(study, read_store(file), len(results.seeds), file)
    stored = StoredStudy(
        study=study.name,
        seeds=list(results.seeds),
        looks=results.looks,
        units=list(results.units),
        runs=counts.runs,
        of=counts.of,
        minutes=round(counts.minutes, 1),
        made=counts.made,
        claims=[
            StoredClaim(
                claim=m.claim.claim,
                question=m.claim.question(),
                effects=[_stored(effect) for effect in m.effects],
                beside=[_stored(effect) for effect in m.beside],
            )
            for m in measured
        ],
        scores=[*_rows(results, results.scores), *_rows(results, results.likelihoods)],
    )
    write_text(file, json.dumps(stored.model_dump(mode="json", exclude_none=True), indent=1) + "\n")


def read_store(file: Path) -> StoredStudy:
    """Read a study's results.

    Raises:
        UserError: If the file isn't one.
    """
    try:
        return StoredStudy.model_validate_json(file.read_text())
    except (ValidationError, ValueError):
        raise UserError(f"{file}: not the results of a study: write it again with `mm1 study report`") from None


def measured_claims(study: Study, stored: StoredStudy) -> list[Measured | None]:
    """Return a study's claims with their stored effects; None for one that wasn't measured as it now stands."""
    there = {json.dumps(claim.question, sort_keys=True): claim for claim in stored.claims}
    measured: list[Measured | None] = []
    for claim in study.claims:
        found = there.get(json.dumps(claim.question(), sort_keys=True))
        if found is None:
            measured.append(None)
            continue
        effects, beside = (tuple(map(_effect, group)) for group in (found.effects, found.beside))
        measured.append(Measured(claim, effects, beside, tuple(stored.units), stored.looks))
    return measured


def _refuse_silent_looks(study: Study, before: StoredStudy, seeds: int, file: Path) -> None:
    looked = len(before.seeds) if before.runs == before.of else 0
    if 0 < looked < seeds and looked not in study.looks:
        raise UserError(
            f"study {study.name}: {file} has results of {looked} seeds, and now there are {seeds}: set looks to "
            f"[{looked}, {seeds}], which corrects the tests for both looks, or give the study a new name"
        )


def _rows(results: Results, scores: Iterable[Scores]) -> list[StoredScores]:
    return [
        StoredScores(
            arm=dict(arm),
            task=s.task,
            shots=s.shots,
            items=s.items,
            measure=s.measure,
            by_seed=_values(s.points[number]),
            swapped=None if np.isnan(s.blind[number]).all() else _values(s.blind[number]),
        )
        for s in scores
        for number, arm in enumerate(results.arms)
        if not np.isnan(s.points[number]).all()
    ]


def _values(values: Floats) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 4) for value in values]


def _stored(effect: Effect) -> StoredEffect:
    by_seed = [float(value) for value in effect.by_seed]
    return StoredEffect(
        name=effect.name,
        by_seed=by_seed,
        items_variance=effect.items_variance,
        items=effect.items,
        measure=effect.measure,
    )


def _effect(stored: StoredEffect) -> Effect:
    by_seed = np.array(stored.by_seed)
    return Effect(stored.name, by_seed, stored.items_variance, stored.items, stored.measure)
