"""From the name of a model to its folder: the one place where a name becomes files.

    resolve_model("runs/demo" | "runs/demo@750" | "folder" | "s3://bucket/demo" | "owner/name" | "smollm2") --> a folder

Commands call `resolve_model` on what they are given, and `resolve_models` on a recipe before anything is built from
it. Everything behind that door works on folders.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

from mm1.errors import UserError, in_one_line
from mm1.files import hash_files
from mm1.model.checkpoint import checkpoints, step_model
from mm1.model.packaged import packaged_model
from mm1.nearest import nearest_path
from mm1.places import HUB, ModelName, parse_model_name
from mm1.recipe import EncoderRecipe, Recipe, Section, load_recipe
from mm1.remote.folders import local_copy, remote_hash

R = TypeVar("R", Recipe, EncoderRecipe)

CONFIGS = ("config.json", "open_clip_config.json")
"""A folder with one of these is a model's."""

_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
_WEIGHTS = ["*.safetensors"]


def resolve_model(name: Path | str, key: str | None = None, *, weights: bool = True) -> Path:
    """Return the folder of the model that a name stands for.

    Args:
        name: A run's directory, a step of a run, a folder, an address, a Hub id or a packaged model (see
            `mm1.places.MODEL_HELP`).
        key: The recipe's key or the option that holds the name, for messages.
        weights: Whether the weights are needed; without them little is downloaded.

    Raises:
        UserError: If there is no such model, or it can't be had.
    """
    try:
        found = parse_model_name(name)
        if found.kind == "hub":
            return _from_hub(found, weights)
        if found.kind == "address":
            return _folder(ModelName(found.text, "folder", str(copy_of_run(found, weights=weights))))
        if found.kind == "packaged":
            return packaged_model(found.place)
        if found.kind == "step":
            return _step(found)
        return _folder(found)
    except UserError as error:
        raise UserError(f"{key}: {error}" if key else str(error)) from None


def resolve_models(recipe: R, *, weights: bool = True) -> R:
    """Return a recipe in which every `from` is the folder of a model.

    Args:
        recipe: As it was written.
        weights: As of `resolve_model`.

    Raises:
        UserError: If one of its models can't be found; the key is named.
    """
    model = recipe.model
    changes: dict[str, object] = {}
    if model.from_ is not None:
        changes["from_"] = str(resolve_model(model.from_, "model.from", weights=weights))
    for part in ("vision", "language_model"):
        section: Section | None = getattr(model, part, None)
        source = getattr(section, "from_", None)
        # A part whose shape the recipe states needs no files as long as no weights are wanted.
        stated = not weights and getattr(section, "size", None) is not None
        if section is not None and source is not None and not stated:
            folder = resolve_model(source, f"model.{part}.from", weights=weights)
            changes[part] = section.model_copy(update={"from_": str(folder)})
    return recipe.model_copy(update={"model": model.model_copy(update=changes)})


def model_hash(folder: Path) -> str:
    """Return a hash of the weights, the configuration and the processor in a model's folder."""
    return hash_files(sorted(file for pattern in ("*.safetensors", "*.json") for file in folder.glob(pattern)))


def copy_of_run(name: ModelName, *, weights: bool = True) -> Path:
    """Return the folder in the cache that holds what is needed of a run, or of a model's folder, at an address.

    Args:
        name: A name of the kind `address`.
        weights: Whether the weights are needed.

    Raises:
        UserError: If nothing is there, or it can't be had.
    """
    return local_copy(name.place, _needed(weights))


def hash_of_run(name: ModelName) -> str:
    """Return a hash over names, sizes and etags of what is needed of a run, or of a model's folder, at an address.

    Args:
        name: A name of the kind `address`.

    Raises:
        UserError: If nothing is there, or its store doesn't tell.
    """
    return remote_hash(name.place, _needed(weights=True))


def _needed(weights: bool) -> Callable[[str], bool]:
    """Return what tells of a file's path from a run, or from a model's folder, whether it is needed."""
    patterns = _FILES + (_WEIGHTS if weights else [])

    def is_needed(file: str) -> bool:
        place = file.removeprefix("model/")
        return file == "recipe.yaml" or ("/" not in place and any(fnmatch(place, pattern) for pattern in patterns))

    return is_needed


def _folder(name: ModelName) -> Path:
    place = Path(name.place).expanduser()
    for folder in (place / "model", place):
        if any((folder / config).is_file() for config in CONFIGS):
            return folder
    if not place.exists():
        raise UserError(
            f"'{name.text}' is no model: no such folder: make it first, or name another one ({HUB}owner/name for one "
            f"of the Hub){nearest_path(place)}"
        )
    if saved := checkpoints(place / "checkpoints"):
        step = int(saved[-1].name.removeprefix("step-"))
        raise UserError(
            f"'{name.text}' is a run that has not ended: train it to its end, or name one of its steps, such as "
            f"{name.text}@{step}"
        )
    raise UserError(f"'{name.text}' is no model (no config.json): name a run's directory or a model's folder")


def _step(name: ModelName) -> Path:
    run, step = Path(name.place), int(str(name.version))
    if not (run / "recipe.yaml").is_file():
        raise UserError(f"'{name.text}': {run} is no run (no recipe.yaml): only runs have steps")
    recipe = load_recipe(str(run / "recipe.yaml"))
    return step_model(run, step, resolve_models(recipe))


def _from_hub(name: ModelName, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = _FILES + (_WEIGHTS if weights else [])
    try:
        return Path(snapshot_download(name.place, revision=name.version, allow_patterns=patterns))
    except Exception as error:  # the library raises many kinds for a missing name, access or network
        reason = in_one_line(error)
        raise UserError(
            f"'{name.text}' is no model: no such folder, and not on the Hub or out of reach ({reason})"
            f"{nearest_path(name.place)}"
        ) from None
