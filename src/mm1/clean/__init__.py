"""Cleans a corpus by named cleaning steps; each step is optional and counts what it drops.

    clean(Path("data/web"), Path("data/web-clean"), ["image-size", {"near-duplicates": {"threshold": 0.9}}])

A new step is one new class and one line in `STEPS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_letters, digits
from typing import Any

import yaml

from mm1.clean.duplicates import ExactDuplicates, RepeatedImages
from mm1.clean.job import NamedStep, Resources, clean_splits
from mm1.clean.masking import mask_splits
from mm1.clean.near_duplicates import NearDuplicates
from mm1.clean.near_evaluation import NearEvaluation
from mm1.clean.pictures import CopiesInDocument, Decodable, ImageAddress, ImageCount, ImageSize
from mm1.clean.step import Step
from mm1.clean.text import TextLength, TextQuality
from mm1.data.registry import make
from mm1.errors import UserError
from mm1.recipe.yaml_text import read_yaml

STEPS: dict[str, type[Step]] = {
    "image-size": ImageSize,
    "image-address": ImageAddress,
    "decodable": Decodable,
    "copies-in-document": CopiesInDocument,
    "repeated-images": RepeatedImages,
    "image-count": ImageCount,
    "text-length": TextLength,
    "text-quality": TextQuality,
    "exact-duplicates": ExactDuplicates,
    "near-duplicates": NearDuplicates,
    "near-evaluation": NearEvaluation,
}

DEFAULT_STEPS = tuple(name for name in STEPS if name not in ("decodable", "near-evaluation"))
"""The steps that the paper applies to interleaved pages (arXiv 2403.09611, appendix A, after OBELICS), in order."""

_NAME = {*ascii_letters, *digits, "-", "_"}

StepConfig = str | Mapping[str, Mapping[str, Any] | None]


def clean(
    source: Path,
    target: Path,
    steps: Sequence[StepConfig] = DEFAULT_STEPS,
    *,
    splits: Sequence[str] | None = None,
    workers: int | None = None,
    memory: str = "2GB",
    engine: str = "processes",
) -> dict[str, Any]:
    """Clean a corpus into a new one, whose `corpus.json` counts under `cleaning` what every step dropped.

    Steps are applied in order, each to the output of the step before. An interrupted job resumes.

    Args:
        source: The corpus, such as `data/web`.
        target: The directory of the clean corpus; replaced if there is one.
        steps: Names, or mappings of one name to its options: `{"image-size": {"min_side": 64}}`.
        splits: The splits to clean; default: all. Other splits are left out of the new corpus.
        workers: Processes; default: one per core.
        memory: Memory limit of DuckDB in the global steps; it writes larger data to disk.
        engine: Where the work is done: `processes` on this machine, or `ray` on a cluster.

    Returns:
        The content of `corpus.json`.

    Raises:
        UserError: If a step or option is unknown, the source isn't a corpus, the target holds anything but a clean
            corpus, or no document is left.
    """
    if source.resolve() == target.resolve():
        raise UserError(f"{target}: the clean corpus would replace its source: choose another directory")
    resources = Resources(workers, memory, engine)
    return clean_splits(source, target, make_steps(steps), splits=splits, resources=resources)


def clean_in_place(
    source: Path,
    steps: Sequence[StepConfig] = DEFAULT_STEPS,
    *,
    name: str = "clean",
    splits: Sequence[str] | None = None,
    workers: int | None = None,
    memory: str = "2GB",
    engine: str = "processes",
) -> dict[str, Any]:
    """Write masks beside a corpus's splits that say what cleaning drops; the corpus stays as it is.

    `corpus/split@name` then has the documents that `clean` would write, and trains in the same way.

    Args:
        source: The corpus.
        steps: As in `clean`.
        name: The masks' name.
        splits: The splits to clean; default: all.
        workers: As in `clean`.
        memory: As in `clean`.
        engine: As in `clean`.

    Returns:
        What `mm1.look.cleaning.cleaning_table` shows.

    Raises:
        UserError: As in `clean`, or the name can't be one.
    """
    if not name or not set(name) <= _NAME:
        raise UserError(f"the mask's name is '{name}': take letters, digits, - and _")
    return mask_splits(source, make_steps(steps), name, splits=splits, resources=Resources(workers, memory, engine))


def make_steps(steps: Sequence[StepConfig]) -> list[NamedStep]:
    """Return the steps that a configuration names (see `clean`).

    Raises:
        UserError: If the configuration isn't a list of steps, or a step or option is unknown.
    """
    made: list[NamedStep] = []
    if isinstance(steps, (str, Mapping)) or not isinstance(steps, Sequence):
        raise UserError(f"steps must be a list of names or 'name: options' (given: {steps!r}): write a list")
    for entry in steps:
        named = {entry: None} if isinstance(entry, str) else entry
        if not isinstance(named, Mapping) or len(named) != 1:
            raise UserError(f"a step must be a name, or one name with its options (given: {entry!r}): write one step")
        ((name, options),) = named.items()
        if options is not None and not isinstance(options, Mapping):
            raise UserError(f"step '{name}': its options must have the form 'option: value' (given: {options!r})")
        made.append(NamedStep(name, make(STEPS, "step", name, options or {})))
    return made


def read_steps(file: Path) -> list[StepConfig]:
    """Return the list of steps of a YAML file.

    Raises:
        UserError: If the file can't be read or isn't a list.
    """
    try:
        steps = read_yaml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{file}: the steps can't be read ({error}): write a YAML list of steps") from None
    if not isinstance(steps, list):
        raise UserError(f"{file}: the file isn't a list: write a YAML list of steps, such as '- image-size'")
    return steps
