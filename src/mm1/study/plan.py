"""Plans a study's runs: resolves their recipes and names their directories.

A run's directory is named by a hash over its resolved recipe, the version of results (`mm1.study.version`) and the
weights that it starts from. So a run that exists is never made twice, even if another study made it, and a run is made
again if one of the three changes. environment.json in the directory records the commit.
The hash doesn't include how a run is scored: runs that differ only in that share the directory and the training, and
have separate folders for their scores.
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
from mm1.model.resolve import hash_of_run
from mm1.places import parse_model_name
from mm1.recipe import Recipe, load_recipe
from mm1.study.checks import check_runs
from mm1.study.schema import Arm, Study, arm_name, for_seed
from mm1.study.units import Recipes, check_units
from mm1.study.version import results_token

DONE = "study-run.json"
"""File among a run's scores, written when the run is done: how it was scored, and how long scoring took."""

TRAINED = "training.json"
"""File in a run's directory: how long its training took, summed over all its starts."""


@dataclass(frozen=True)
class StudyRun:
    """One arm with one seed.

    Attributes:
        arm: The values of the study's axes.
        seed: The seed of the initial weights and of the data's order.
        recipe: The resolved recipe.
        directory: The run's directory; runs of the same training share it.
    """

    arm: Arm
    seed: int
    recipe: Recipe
    directory: Path

    @property
    def name(self) -> str:
        """The run's name, such as `mask=inside, seed 0`."""
        return f"{arm_name(self.arm)}, seed {self.seed}"

    @property
    def log(self) -> Path:
        """The file with all output of the run's processes."""
        return self.directory.with_suffix(".log")

    @property
    def seconds(self) -> float | None:
        """Seconds of training and scoring, even if another study trained it; None if the run is not done."""
        scoring = self.scoring_seconds
        return None if scoring is None else scoring + training_seconds(self.directory)

    @property
    def scoring_seconds(self) -> float | None:
        """Seconds of scoring; None if the run is not done."""
        return _seconds(self.scores / DONE)

    @property
    def scores(self) -> Path:
        """The folder of the run's results."""
        return scores_folder(self.directory, self.recipe)


def plan_runs(study: Study, store: Path) -> list[StudyRun]:
    """Return the runs of a study, seed by seed, so that every arm has a first result early.

    Args:
        study: The study.
        store: The directory of the runs of all studies.

    Raises:
        UserError: If an arm's changes don't fit the recipe or are those of another arm, or a claim asks for scores that
            no run has (`mm1.study.checks`), or has the wrong unit (`mm1.study.units`).
    """
    runs = []
    for seed in study.seeds:
        for arm, changes in study.arms().items():
            try:
                own = for_seed(changes, seed)
                recipe = load_recipe(study.base, changes={**own, "seed": seed, "name": study.name})
            except UserError as error:
                raise UserError(f"study {study.name}, arm {arm_name(arm)}: {error}") from None
            if not recipe.evaluate.tasks:
                raise UserError(
                    f"study {study.name}: evaluate.tasks is empty, so its runs have no scores: name tasks as "
                    "evaluate.tasks under `set`"
                )
            runs.append(StudyRun(arm, seed, recipe, store / identity(recipe)))
    recipes = recipes_of(runs)
    check_units(study, recipes)
    check_runs(study, recipes)
    return runs


def recipes_of(runs: Iterable[StudyRun]) -> Recipes:
    """Return the runs' recipes by arm and seed."""
    return {(run.arm, run.seed): run.recipe for run in runs}


def minutes_of(runs: Sequence[StudyRun]) -> float:
    """Return the minutes that the completed runs took; training and scoring that several runs share count once."""
    done = [run for run in runs if run.scoring_seconds is not None]
    training = {run.directory: training_seconds(run.directory) for run in done}
    scoring = {run.scores: run.scoring_seconds or 0.0 for run in done}
    return (sum(training.values()) + sum(scoring.values())) / 60


def distinct(runs: Iterable[StudyRun]) -> list[StudyRun]:
    """Return the runs without duplicates, which have the same training and the same scoring."""
    return list({run.scores: run for run in runs}.values())


def training_seconds(directory: Path) -> float:
    """Return the seconds that a run's training has taken so far, summed over all its starts."""
    return _seconds(directory / TRAINED) or 0.0


def _seconds(file: Path) -> float | None:
    try:
        return float(json.loads(file.read_text())["seconds"])
    except (OSError, ValueError):
        return None


def scores_folder(directory: Path, recipe: Recipe) -> Path:
    """Return the folder in a run's directory for the results of a recipe's scoring; its name is a hash."""
    evaluate = recipe.evaluate.model_dump(mode="json")
    if not evaluate["right_answers"]:
        del evaluate["right_answers"]  # a later key; without it, the first results keep their names
    elif not evaluate["plain"]:
        # Until 2026-12-01 right answers in conversations had other tokens than in training. No recipe says whether its
        # model takes conversations, so whatever is not asked plainly is scored again.
        evaluate["right_answers"] = "as turns"
    return directory / "scores" / _hash(evaluate)


def identity(recipe: Recipe) -> str:
    """Return a hash over what determines a run's weights: recipe, version, first weights.

    The recipe counts without name, scoring, profile, and how weights lie on ranks.
    """
    layout = {"profile", "expert_parallel", "reshard_after_forward"}
    without: dict[str, Any] = {"name": True, "evaluate": True, "train": layout}
    content = recipe.model_dump(by_alias=True, mode="json", exclude=without)
    model = recipe.model
    if "attention" not in model.language_model.model_fields_set:
        # The machine chooses how it is computed. The recipes of the first results named it, so their names have it.
        content["model"]["language_model"]["attention"] = "eager"
    _drop_newer_keys(content)
    starts = [weights_digest(part.from_) for part in (model, model.vision, model.language_model) if part.from_]
    return _hash([content, results_token(), starts])


def _drop_newer_keys(content: dict[str, Any]) -> None:
    """Leave out keys that came after the first results where they are unset, so that earlier runs keep their names."""
    builds = [source["build"] for kind in content["data"]["mixture"].values() for source in kind["sources"]]
    newer = [(content["train"], "lora"), (content["model"]["language_model"], "size")]
    newer += [(build, key) for build in builds if build is not None for key in ("fetch", "limit")]
    for section, key in newer:
        if not section[key]:
            del section[key]


def _hash(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()


@cache
def weights_digest(source: str) -> str:
    """Return a hash over the name of a model and its weights, if they are on this machine; at an address, its etags.

    Args:
        source: See `mm1.places.MODEL_HELP`.

    Raises:
        UserError: If nothing is at the address, or it can't be had.
    """
    name = parse_model_name(source)
    if name.kind == "address":
        return hashlib.blake2b(f"{source} {hash_of_run(name)}".encode(), digest_size=16).hexdigest()
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
    """Return the number of threads per run if `jobs` runs are made at a time."""
    return max(1, (os.cpu_count() or 1) // jobs)
