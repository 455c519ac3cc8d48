"""The start of every training: joins the ranks, opens the corpora, and makes and locks the run's directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mm1.data.corpus import Split
from mm1.plan.sources import open_splits
from mm1.progress import console
from mm1.recipe import EncoderRecipe, Recipe
from mm1.train.parallel import World, join_ranks
from mm1.train.run_directory import TRACES, change_recipe, locked_run, open_run
from mm1.version import __version__


@dataclass(frozen=True)
class Beginning:
    """A training that is ready to start.

    Attributes:
        world: The ranks that train together.
        splits: The recipe's corpora, by name.
        result: The folder that the model is written to.
        done: Whether the model exists already.
    """

    world: World
    splits: dict[str, Split]
    result: Path
    done: bool


@contextmanager
def begin(recipe: Recipe | EncoderRecipe, directory: Path) -> Iterator[Beginning]:
    """Join the ranks, open the corpora, and lock the run's directory until the block ends.

    Args:
        recipe: The recipe as the user wrote it.
        directory: The run's directory.

    Raises:
        UserError: On all ranks, if a corpus is missing, ranks differ, or the directory belongs to another run.
    """
    with join_ranks(recipe.train.device, directory / TRACES) as world, ExitStack() as stack:
        with world.errors_shared():
            splits = open_splits(recipe)
        content = " ".join(split.content_hash for split in splits.values())
        world.check_equal(recipe=recipe.to_yaml(), corpora=content, code=__version__)
        with world.errors_shared():
            if world.is_first:
                for split in splits.values():
                    split.check_sources()
                open_run(directory, recipe)
                stack.enter_context(locked_run(directory))
                change_recipe(directory, recipe)
                if world.size > 1 and world.device.type == "cuda":
                    (directory / TRACES).mkdir(exist_ok=True)
        result = directory / "model"
        done = (result / "config.json").is_file()
        if done:
            console.print(f"{result} exists already: there is nothing to train")
        yield Beginning(world, splits, result, done)
