"""What the shell completes: names of packaged recipes, studies and tasks. Nothing of them is read."""

from __future__ import annotations


def complete_recipe() -> list[str]:
    """Return the packaged recipes."""
    from mm1.recipe import packaged_recipes

    return packaged_recipes()


def complete_study() -> list[str]:
    """Return the packaged studies."""
    from mm1.study.schema import packaged_studies

    return packaged_studies()


def complete_world() -> list[str]:
    """Return the worlds of the packaged studies."""
    from mm1.study.schema import packaged_worlds

    return packaged_worlds()


def complete_tasks(incomplete: str) -> list[str]:
    """Return the packaged tasks, each behind the tasks that are named already with a comma."""
    from mm1.evaluate.tasks.task import packaged_tasks

    named, comma, _ = incomplete.rpartition(",")
    return [f"{named}{comma}{name}" for name in packaged_tasks()]
