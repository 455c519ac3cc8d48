"""What is wrong with a study's runs and can be said before they are made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mm1.errors import UserError
from mm1.evaluate.tasks.task import load_task
from mm1.nearest import did_you_mean
from mm1.study.schema import Study, arm_name
from mm1.study.units import Recipes


def check_runs(study: Study, recipes: Recipes) -> None:
    """Refuse a study whose arms don't differ, or with a claim or a figure of scores that its runs don't get.

    Raises:
        UserError: For the first such arm, claim or figure.
    """
    _check_arms(study, recipes)
    _check_scores(study, recipes)


def _check_arms(study: Study, recipes: Recipes) -> None:
    seed = study.seeds[0]
    same: dict[str, str] = {}
    for arm in study.arms():
        other = same.setdefault(recipes[arm, seed].to_yaml(), arm_name(arm))
        if other != arm_name(arm):
            raise UserError(
                f"study {study.name}: the arms {other} and {arm_name(arm)} have the same recipe, so nothing differs "
                "between them: change the keys of one, or remove it"
            )


def _check_scores(study: Study, recipes: Recipes) -> None:
    scored = [recipe.evaluate for recipe in recipes.values()]
    tasks = {load_task(task).name for task in dict.fromkeys(task for each in scored for task in each.tasks)}
    shots = {count for each in scored for count in each.shots}
    for where, of_tasks, of_shots in _asked(study):
        for task in of_tasks:
            if task not in tasks:
                raise UserError(
                    f"study {study.name}, {where}: its runs have no task '{task}' (evaluate.tasks): "
                    f"{did_you_mean(task, sorted(tasks))}"
                )
        for count in of_shots:
            if count not in shots:
                known = ", ".join(map(str, sorted(shots)))
                raise UserError(
                    f"study {study.name}, {where}: its runs are not scored at {count} shots (evaluate.shots): choose "
                    f"from {known}"
                )


def _asked(study: Study) -> Iterable[tuple[str, Sequence[str], Sequence[int]]]:
    """Yield the tasks and numbers of shots that claims and the figure ask for, each with where it does."""
    for number, claim in enumerate(study.claims, start=1):
        yield f"claim {number}", claim.tasks or (), [*(claim.shots or ()), *(claim.worse_shots or ())]
    if study.figure is not None:
        yield "figure", study.figure.tasks or (), study.figure.shots or ()
