"""Reads a recipe from a file or by name, applies overrides, and states the first mistake in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, overload

import yaml
from pydantic import ValidationError

from mm1.document import KINDS
from mm1.errors import UserError
from mm1.progress import console
from mm1.ranks import is_first_rank
from mm1.recipe.keys import elsewhere
from mm1.recipe.packaged import Shelf
from mm1.recipe.schema import Recipe, Section
from mm1.recipe.train import TrainRecipe
from mm1.recipe.yaml_text import read_yaml

S = TypeVar("S", bound=Section)


RECIPES = Shelf("recipe", "mm1.recipes")


def packaged_recipes() -> list[str]:
    """Return the names of the packaged recipes."""
    return RECIPES.names()


@overload
def load_recipe(
    name_or_path: str, overrides: Sequence[str] = (), *, changes: Mapping[str, Any] | None = None
) -> Recipe: ...


@overload
def load_recipe(
    name_or_path: str, overrides: Sequence[str] = (), *, changes: Mapping[str, Any] | None = None, schema: type[S]
) -> S: ...


def load_recipe(
    name_or_path: str,
    overrides: Sequence[str] = (),
    *,
    changes: Mapping[str, Any] | None = None,
    schema: type[Section] = Recipe,
) -> Section:
    """Read a recipe, apply overrides, check it.

    Args:
        name_or_path: A packaged recipe's name (`demo`) or a YAML file.
        overrides: `key=value` settings such as `train.steps=100`; values are YAML.
        changes: Settings with Python values (`{"train.steps": 100}`); applied before the overrides.
        schema: The recipe's schema.

    Raises:
        UserError: If the recipe can't be found or read, or a key or value is wrong.
    """
    content = RECIPES.read(name_or_path)
    for key, value in (changes or {}).items():
        set_key(content, key, value)
    return check_recipe(content, overrides, name_or_path, schema)


def check_recipe(content: dict[str, Any], overrides: Sequence[str], name: str, schema: type[S]) -> S:
    """Apply overrides to a recipe's content and check it.

    Args:
        content: Keys and values as in a recipe file; changed in place.
        overrides: As in `load_recipe`.
        name: The recipe's name in error messages.
        schema: The recipe's schema.

    Raises:
        UserError: If a key or value is wrong.
    """
    settings = [parse_setting(override) for override in overrides]
    planned = _steps(content, schema)
    for key, value in settings:
        set_key(content, key, value)
    if "train.warmup_steps" not in dict(settings):
        _shorten_warmup(content, schema, *planned)
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        if "objective" in content and "objective" not in schema.model_fields:
            raise UserError(f"{name}: this is an encoder's recipe: train it with `mm1 encoder`") from None
        raise UserError(f"{name}: {_explain(error, schema)}") from None


def _steps(content: Mapping[str, Any], schema: type[Section]) -> tuple[Any, Any]:
    """Return the steps and the steps of warm-up of a recipe's content; None where it is none that trains."""
    train = content.get("train", {})
    if "train" not in schema.model_fields or not isinstance(train, Mapping):
        return None, None
    fields = TrainRecipe.model_fields
    return train.get("steps", fields["steps"].default), train.get("warmup_steps", fields["warmup_steps"].default)


def _shorten_warmup(content: dict[str, Any], schema: type[Section], planned: Any, warmup: Any) -> None:
    """Let the warm-up of a run that was made too short for it keep its share of the steps, and say so.

    Args:
        content: The recipe after its settings; changed in place.
        schema: The recipe's schema.
        planned: Steps before.
        warmup: Steps of warm-up.
    """
    steps = _steps(content, schema)[0]
    if all(type(number) is int for number in (steps, planned, warmup)) and 0 < steps <= warmup < planned:
        shorter = steps * warmup // planned
        set_key(content, "train.warmup_steps", shorter)
        if is_first_rank():
            console.print(
                f"train.warmup_steps is {shorter} and not {warmup:,}, for train.steps is {steps:,} and not {planned:,}",
                style="dim",
            )


def parse_setting(setting: str, option: str = "--set") -> tuple[str, Any]:
    """Return the key and the value of `key=value`; the value is read as YAML.

    Args:
        setting: The text as the user gave it.
        option: The command line's option, for messages.

    Raises:
        UserError: If it is not `key=value`, or the value is not YAML.
    """
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise UserError(f"{option} {setting}: write it as key=value, for example train.steps=100")
    try:
        return key, read_yaml(text)
    except yaml.YAMLError:
        raise UserError(f"{option} {setting}: the value is not valid YAML") from None


def set_key(content: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key such as `train.steps` in nested mappings; missing mappings are created."""
    *parents, last = key.split(".")
    for parent in parents:
        child = content.get(parent)
        content[parent] = child = dict(child) if isinstance(child, dict) else {}
        content = child
    content[last] = value


def _explain(error: ValidationError, schema: type[Section]) -> str:
    """Return the first problem as one sentence; for a misspelt key it suggests the nearest one."""
    # A misspelt key may also be reported as missing; the misspelling says more, so it comes first.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(step) for step in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        section = _section_at(first["loc"][:-1], schema)
        known = [f.alias or name for name, f in section.model_fields.items()] if section else []
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1) or elsewhere(schema, key)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys here: {', '.join(known)}"
        return f"unknown key '{key}': {hint}{more}"
    if first["type"] == "missing":
        return f"key '{key}' is missing: add it{more}"
    message = first["msg"].removeprefix("Value error, ")
    given = f" (given: {first['input']!r})" if not isinstance(first["input"], dict) else ""
    where = f"key '{key}': " if key else ""  # the message of a rule over several sections names its keys
    return f"{where}{message}{given}{more}"


def _section_at(location: tuple[int | str, ...], schema: type[Section]) -> type[Section] | None:
    """Return the section that a validation error's location points to."""
    section: Any = schema
    for step in location:
        if isinstance(step, int) or step in KINDS or not (isinstance(section, type) and issubclass(section, Section)):
            section = section if isinstance(section, type) else None
            continue
        fields = {f.alias or name: f for name, f in section.model_fields.items()}
        annotation: Any = fields[step].annotation if step in fields else None
        section = _inner_section(annotation)
    return section if isinstance(section, type) and issubclass(section, Section) else None


def _inner_section(annotation: Any) -> Any:
    """Return the `Section` class inside an annotation such as `dict[Kind, KindRecipe]`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner_section(argument)
        if found is not None:
            return found
    return None
