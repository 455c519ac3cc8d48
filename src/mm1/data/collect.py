"""Build the corpora of a recipe that says how: each from a local copy, or from the Hub where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mm1.data.build import build_from
from mm1.data.losses import MAX_LOSSES
from mm1.errors import UserError
from mm1.places import data_directory
from mm1.progress import console
from mm1.recipe import BuildRecipe, Recipe


def collect(
    recipe: Recipe,
    local: Path | None = None,
    workers: int | None = None,
    max_losses: float | None = MAX_LOSSES,
) -> list[str]:
    """Build every source of a recipe that has `build`; those that are there already from the same files are kept.

    Args:
        recipe: Its sources are named `corpus/split`.
        local: A folder with a folder for each split (`vqav2/` for `sft/vqav2`), in the source's format.
        workers: Processes; default: as many as there are cores.
        max_losses: See `mm1.data.build.build_from`.

    Returns:
        The sources that can't be built: there is neither a local copy nor a dataset of the Hub.

    Raises:
        UserError: If the recipe says of no source how it is built, or building one fails.
    """
    sources = [source for mix in recipe.data.mixture.values() for source in mix.sources if source.build is not None]
    if not sources:
        raise UserError(f"recipe '{recipe.name}': no source says how it is built: give the sources a key `build`")
    missing = []
    for source in sources:
        corpus, _, split = source.corpus.rpartition("/")
        build = source.build or BuildRecipe()
        found = _found(build, split, local)
        if found is None:
            missing.append(source.corpus)
            continue
        format_, pattern, options = found
        info = build_from(
            format_,
            [pattern],
            data_directory() / corpus,
            split=split,
            workers=workers,
            options=options,
            max_losses=max_losses,
            limit=build.limit,
        )
        console.print(f"{source.corpus}: {_told(info['splits'][split], pattern)}")
    return missing


def _found(build: BuildRecipe, split: str, local: Path | None) -> tuple[str, str, dict[str, Any]] | None:
    """Return format, pattern and options to build with; None if there is nothing to build from."""
    fetch = {"fetch": True} if build.fetch else {}
    if local is not None and (local / split).is_dir():
        return build.format, str(local / split), {**build.options, **fetch}
    if build.hub is None:
        return None
    return "hub", build.hub, {"subset": build.subset, "revision": build.revision, **fetch}


def _told(split: Mapping[str, Any], pattern: str) -> str:
    """Return a line about a split: how many documents, of what, and what is missing."""
    built = split["built"]
    commit = built["options"].get("revision")
    left_out = sum(reason["count"] for reason in split.get("skipped", {}).values())
    return (
        f"{split['documents']:,} documents from {pattern}{f' at {commit}' if commit else ''}"
        f"{' (the first: build.limit)' if split['documents'] == built.get('limit') else ''}, {left_out:,} left out, "
        f"{split['images']:,} pictures, {split['pictures_left_out']:,} left out"
    )
