"""Checks what the documentation shows without running it: calls of mm1 by its own parser, YAML by its schemas."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer.main
import yaml

from mm1.clean import make_steps, read_steps
from mm1.cli import app
from mm1.cli.options import parse_options, split_commas
from mm1.corpora import corpus_options
from mm1.data.readers import make_reader
from mm1.errors import UserError
from mm1.evaluate.tasks.task import load_task
from mm1.recipe import EncoderRecipe, Recipe, load_recipe
from mm1.study.schema import load_study
from tests.docs.blocks import Block

ROOT_COMMAND: Any = typer.main.get_command(app)
_PLACEHOLDER = re.compile(r"^[A-Z]+(\.\.\.)?$")


def find_command(words: Sequence[str]) -> tuple[Any, list[str]]:
    """Return the command that the first words name, and the other words.

    Raises:
        UserError: If there is no such command.
    """
    command, rest = ROOT_COMMAND, list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            raise UserError(f"mm1 {' '.join(words)}: no command '{rest[0]}'")
        command = command.commands[rest.pop(0)]
    return command, rest


def check_call(words: Sequence[str]) -> None:
    """Check a call of mm1: the command, its options, and every packaged name and key that it gives.

    Raises:
        UserError: If a name or a key is unknown.
        Exception: The parser's own, if an option is unknown or an argument is missing.
    """
    command, rest = find_command(words)
    if hasattr(command, "commands"):  # mm1 --help
        return
    given = command.make_context(command.name, rest).params
    if command.name == "launch":
        check_call(given["command"])
    settings = given.get("set_") or ()
    if command.name == "build":
        _check_corpora(given, settings)
    schema = EncoderRecipe if command.name == "encoder" else Recipe
    for name in _names(given, "recipe", *("names", "models")[: 2 * (command.name in ("show", "budget"))]):
        load_recipe(name, settings, schema=schema)
    for name in _names(given, "study"):
        load_study(name)
    for name in split_commas(given.get("tasks") or ""):
        if not name.endswith(".yaml") and not _PLACEHOLDER.match(name):
            load_task(name)


def _names(given: Mapping[str, Any], *parameters: str) -> Iterator[str]:
    """Yield the packaged names that parameters hold: no files, no places, no words in capitals."""
    for parameter in parameters:
        value = given.get(parameter)
        for name in [value] if isinstance(value, str) else value or ():
            if not name.endswith(".yaml") and not name.startswith("runs/") and not _PLACEHOLDER.match(name):
                yield name


def _check_corpora(given: Mapping[str, Any], settings: Sequence[str]) -> None:
    options = parse_options(list(settings))
    if given["from_"] is None:
        for name in given["names"]:
            if unknown := options.keys() - corpus_options(name).keys():
                raise UserError(f"corpus {name} has no option {', '.join(unknown)}")
    elif not _PLACEHOLDER.match(given["from_"]):
        make_reader(given["from_"], **options)


def check_yaml(block: Block, folder: Path) -> str:
    """Check a block of YAML by the schema of what it is; a part of a recipe or a task is put on top of a packaged one.

    Returns:
        `study`, `task`, `steps`, `recipe` or `manifest` (of Kubernetes or SkyPilot, only read).

    Raises:
        UserError: The schema's.
    """
    try:
        contents = [yaml.load(block.content, Loader=_WithoutRepetition)]  # a kind of SafeLoader
    except ValueError:  # an example a line
        contents = [yaml.safe_load(line) for line in block.content.splitlines()]
    kinds = {_check_content(content, folder) for content in contents}
    (kind,) = kinds
    return kind


def _check_content(content: Any, folder: Path) -> str:
    kind = kind_of(content)
    if kind == "manifest":
        return kind
    if kind == "recipe":
        content.setdefault("base", "demo")
    if kind == "task" and not {"data", "prompt", "metric"} <= content.keys():
        content.setdefault("base", "vqav2")
    file = folder / f"{kind}.yaml"
    file.write_text(yaml.safe_dump(content))
    _CHECKS[kind](file)
    return kind


def kind_of(content: Any) -> str:
    """Return which kind of file a block shows."""
    if isinstance(content, list):
        return "steps"
    keys = set(content)
    if keys & {"apiVersion", "resources"}:
        return "manifest"
    if keys & {"axes", "variants", "claims"}:
        return "study"
    if keys & {"prompt", "metric", "shots", "answer"}:
        return "task"
    return "recipe"


def _load_either_recipe(file: Path) -> None:
    of_encoder = str(yaml.safe_load(file.read_text())["base"]).startswith(("clip", "aim"))
    load_recipe(str(file), schema=EncoderRecipe if of_encoder else Recipe)


_CHECKS: dict[str, Callable[[Path], object]] = {
    "steps": lambda file: make_steps(read_steps(file)),
    "study": lambda file: load_study(str(file)),
    "task": lambda file: load_task(str(file)),
    "recipe": _load_either_recipe,
}


class _WithoutRepetition(yaml.SafeLoader):
    """Takes a key that is there twice for an error; PyYAML takes the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Return a mapping of different keys."""
        keys = [key.value for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise ValueError(f"a key is there twice: {keys}")
        return super().construct_mapping(node, deep)
