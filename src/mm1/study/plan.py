"""From a study to the runs that it needs: resolved recipes, and where each run's directory is.

A run's directory is named by a hash over its resolved recipe, the version of results (`mm1.study.version`) and the
weights that it starts from. So a run which is there is never made again, also if another study made it, and is made
anew where one of them changed. The commit is recorded in the run's environment.json.
How it is scored is not part of that: runs that differ in nothing else share the directory, and so the training,
and have their scores in folders of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mm1.errors import UserError
from mm1.places import parse_model_name
from mm1.recipe import Recipe, load_recipe
from mm1.study.schema import Arm, Study, arm_name
from mm1.study.version import results_token

DONE = "study-run.json"
"""Written beside a run's scores when it has been trained and scored: how it was scored, and how long that took."""

TRAINED = "training.json"
"""Written into a run's directory: how long its training took, all its starts together."""


@dataclass(frozen=True)
class StudyRun:
    """One arm with one seed.

    Attributes:
        arm: Which values of the study's axes.
        seed: Of fresh weights and of the data's order.
        recipe: As resolved.
        directory: Where the run is, or is going to be; other runs of the same training have the same.
    """

    arm: Arm
    seed: int
    recipe: Recipe
    directory: Path

    @property
    def name(self) -> str:
        """Such as `mask=inside, seed 0`."""
        return f"{arm_name(self.arm)}, seed {self.seed}"

    @property
    def log(self) -> Path:
        """Where everything that the run's processes said is."""
        return self.directory.with_suffix(".log")

    @property
    def seconds(self) -> float | None:
        """What training and scoring took, whoever made the training; None if the run is not done."""
        scoring = self.scoring_seconds
        return None if scoring is None else scoring + training_seconds(self.directory)

    @property
    def scoring_seconds(self) -> float | None:
        """What scoring alone took; None if the run is not done."""
        return _seconds(self.scores / DONE)

    @property
    def scores(self) -> Path:
        """Where its results are."""
        return scores_folder(self.directory, self.recipe)


def plan_runs(study: Study, store: Path) -> list[StudyRun]:
    """Return the runs of a study, seed by seed, so that every arm has a first result early.

    Args:
        study: What is varied.
        store: The directory that holds all studies' runs.

    Raises:
        UserError: If an arm's changes don't fit the recipe.
    """
    runs = []
    for seed in study.seeds:
        for arm, changes in study.arms().items():
            try:
                recipe = load_recipe(study.base, changes={**changes, "seed": seed, "name": study.name})
            except UserError as error:
                raise UserError(f"study {study.name}, arm {arm_name(arm)}: {error}") from None
            if not recipe.evaluate.tasks:
                raise UserError(
                    f"study {study.name}: its runs are scored on nothing: name tasks under `set`, as evaluate.tasks"
                )
            runs.append(StudyRun(arm, seed, recipe, store / identity(recipe)))
    return runs


def minutes_of(runs: Sequence[StudyRun]) -> float:
    """Return what the runs that are done took, in minutes; training and scoring that several share count once."""
    done = [run for run in runs if run.scoring_seconds is not None]
    training = {run.directory: training_seconds(run.directory) for run in done}
    scoring = {run.scores: run.scoring_seconds or 0.0 for run in done}
    return (sum(training.values()) + sum(scoring.values())) / 60


def distinct(runs: Iterable[StudyRun]) -> list[StudyRun]:
    """Return the runs without those that another study, or another arm, has already: the same training scored alike."""
    return list({run.scores: run for run in runs}.values())


def training_seconds(directory: Path) -> float:
    """Return what a run's training took so far, all its starts together."""
    return _seconds(directory / TRAINED) or 0.0


def _seconds(file: Path) -> float | None:
    try:
        return float(json.loads(file.read_text())["seconds"])
    except (OSError, ValueError):
        return None


def scores_folder(directory: Path, recipe: Recipe) -> Path:
    """Return where a run's results are if it is scored as a recipe says: below its directory, named by a hash."""
    return directory / "scores" / _hash(recipe.evaluate.model_dump(mode="json"))


def identity(recipe: Recipe) -> str:
    """Return a hash over what decides a run's weights: recipe (without name and scoring), version, first weights."""
    content = recipe.model_dump(by_alias=True, mode="json", exclude={"name", "evaluate"})
    model = recipe.model
    starts = [weights_digest(part.from_) for part in (model, model.vision, model.language_model) if part.from_]
    return _hash([content, results_token(), starts])


def _hash(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()


@cache
def weights_digest(source: str) -> str:
    """Return a hash over the name of a model and, if it is on this machine, its weights.

    Args:
        source: See `mm1.places.MODEL_HELP`.
    """
    name = parse_model_name(source)
    folder = name.folder or Path(os.devnull)
    if name.kind == "step":
        folder = folder / "checkpoints" / f"step-{int(str(name.version)):06d}"
    elif (folder / "model").is_dir():
        folder = folder / "model"
    digest = hashlib.blake2b(source.encode(), digest_size=16)
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def threads_per_job(jobs: int) -> int:
    """Return how many threads each of several runs at a time gets."""
    return max(1, (os.cpu_count() or 1) // jobs)
