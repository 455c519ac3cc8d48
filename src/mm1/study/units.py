"""The unit of a claim: what each seed of a study has of its own, and what a claim needs it to have.

What differs between a claim's arms must be replicated. One encoder per arm, shared by all seeds, is one draw of an
encoder, however many runs start from it: their spread says nothing of another encoder.

    the arms ...                                        the claim's unit
    start from different encoders                       encoder
    start from different pre-trained models             pre-training
    start from one pre-trained model (fine-tuning)      base model
    train on data that a model wrote                    base model
    else                                                run
"""

from __future__ import annotations

from collections.abc import Mapping

from mm1.errors import UserError
from mm1.recipe import Recipe
from mm1.study.claim import Claim, Unit
from mm1.study.schema import Arm, Study, arm_name, chosen

Recipes = Mapping[tuple[Arm, int], Recipe]
"""The resolved recipe of every arm and seed."""

_KEYS: dict[Unit, str] = {"encoder": "model.vision.from", "pre-training": "model.from", "base model": "model.from"}


def check_units(study: Study, recipes: Recipes) -> None:
    """Refuse claims that state the wrong unit, or whose unit the seeds don't replicate.

    Raises:
        UserError: For the first such claim.
    """
    for number, claim in enumerate(study.claims, start=1):
        where = f"study {study.name}, claim {number}"
        needed, why = required_unit(study, claim, recipes)
        if claim.unit != needed:
            raise UserError(f"{where}: {why}, so its unit is '{needed}' and not '{claim.unit}': set unit to '{needed}'")
        for arm in study.arms():
            if claim.follows is None and not any(chosen(arm, choice) for choice in claim.choices()):
                continue
            if (shared := _shared(study, arm, needed, recipes)) is not None:
                raise UserError(
                    f"{where}: its unit is '{needed}', but the seeds of arm {arm_name(arm)} share {shared}: give each "
                    "seed its own, by {seed} in the name"
                )


def required_unit(study: Study, claim: Claim, recipes: Recipes) -> tuple[Unit, str]:
    """Return the unit that a claim's arms need, and why."""
    choices = [[arm for arm in study.arms() if chosen(arm, choice)] for choice in claim.choices()]
    if claim.follows is not None:
        choices = [[arm] for arm in study.arms()]
    encoders, models = (
        [{frozenset(_start(recipes[arm, seed], unit) for arm in arms) for arms in choices} for seed in study.seeds]
        for unit in ("encoder", "base model")
    )
    if any(len(each) > 1 for each in models):
        return "pre-training", "its arms start from different pre-trained models (model.from)"
    if any(each != {frozenset({None})} for each in models):
        return "base model", "its arms start from a pre-trained model (model.from)"
    if any(len(each) > 1 for each in encoders):
        return "encoder", "its arms start from different encoders (model.vision.from)"
    if _written_by_model(study):
        return "base model", "a model writes its data (`first`)"
    return "run", "its arms differ in nothing that is trained before them"


def replicated(study: Study, recipes: Recipes) -> tuple[Unit, ...]:
    """Return what every seed of a study has of its own, in all arms."""
    units: tuple[Unit, ...] = ("encoder", "pre-training", "base model")
    return (
        "run",
        *(unit for unit in units if all(_shared(study, arm, unit, recipes) is None for arm in study.arms())),
    )


def _start(recipe: Recipe, unit: Unit) -> str | None:
    return recipe.model.vision.from_ if unit == "encoder" else recipe.model.from_


def _shared(study: Study, arm: Arm, unit: Unit, recipes: Recipes) -> str | None:
    """Return what an arm's seeds share although it is the unit; None if each has its own."""
    if unit == "run":
        return None
    starts = [_start(recipes[arm, seed], unit) for seed in study.seeds]
    if unit == "base model" and starts[0] is None and (commands := _written_by_model(study)):
        return next((f"what `mm1 {command}` writes" for command in commands if "{seed}" not in command), None)
    twice = next((start for start in starts if starts.count(start) > 1), None)
    if twice is not None:
        return f"{_KEYS[unit]} {twice}"
    return "no trained weights to start from" if None in starts else None


def _written_by_model(study: Study) -> list[str]:
    return [command for command in study.first if "recaption" in command.split()]
