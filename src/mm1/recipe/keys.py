"""All keys of a recipe, with what each takes, its default and what it is, as the schema has them."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from mm1.errors import UserError
from mm1.recipe.section import Section

_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}


@dataclass(frozen=True)
class Key:
    """A key of a recipe.

    Attributes:
        name: With its sections, as `--set` takes it. KIND stands for a kind of document, `[]` for a place in a list.
        takes: What values it takes, in words.
        default: The default as YAML; None: the key has to be given.
        description: What it is, with unit and source.
    """

    name: str
    takes: str
    default: str | None
    description: str


def recipe_keys(schema: type[Section], prefix: str = "") -> list[Key]:
    """Return all keys of a schema, in its order.

    Args:
        schema: The schema of a recipe or of one of its sections.
        prefix: What the names begin with.
    """
    return list(_keys(schema, prefix))


def matching_keys(schema: type[Section], part: str) -> list[Key]:
    """Return the keys that begin with a text, or else those that contain it.

    Raises:
        UserError: If there are none; the sentence names the nearest ones.
    """
    keys = recipe_keys(schema)
    found = [key for key in keys if key.name.startswith(part)] or [key for key in keys if part in key.name]
    if not found:
        near = nearest_keys(schema, part)
        hint = f"did you mean {' or '.join(near)}?" if near else "mm1 recipe keys lists all"
        raise UserError(f"no key of a recipe contains '{part}': {hint}")
    return found


def nearest_keys(schema: type[Section], name: str, most: int = 3) -> list[str]:
    """Return the keys whose name, or its last part, is most like another name's; none if none is like it."""
    by_last: dict[str, list[str]] = {}
    for key in recipe_keys(schema):
        by_last.setdefault(key.name.rpartition(".")[2], []).append(key.name)
    last = name.rpartition(".")[2]
    words = {word: whole for whole in by_last for word in whole.split("_")}
    near = difflib.get_close_matches(last, by_last, n=most, cutoff=0.7)
    near = near or [words[word] for word in difflib.get_close_matches(last, words, n=most, cutoff=0.7)]
    return [key for whole in ([last] if last in by_last else near) for key in by_last[whole]][:most]


def elsewhere(schema: type[Section], name: str) -> list[str]:
    """Return the keys of other sections whose last part is that of a name: `train.steps` for `steps`."""
    return [key.name for key in recipe_keys(schema) if key.name.rpartition(".")[2] == name.rpartition(".")[2]]


def _keys(schema: type[Section], prefix: str) -> Iterator[Key]:
    for attribute, field in schema.model_fields.items():
        name = f"{prefix}{field.alias or attribute}"
        inner = _inner(field.annotation)
        if inner is None:
            yield Key(name, _takes(field), _default(field), field.description or "")
            continue
        section, suffix = inner
        if field.default is None or suffix:  # the section may be missing, or there are several
            yield Key(
                name, f"{'null or ' if field.default is None else ''}keys below", _default(field), _of(field, section)
            )
        yield from _keys(section, f"{name}{suffix}.")


def _of(field: FieldInfo, section: type[Section]) -> str:
    return field.description or (section.__doc__ or "").splitlines()[0]


def _inner(annotation: Any) -> tuple[type[Section], str] | None:
    """Return the section that a field holds, and what stands between its name and the section's keys."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, ""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is dict and (found := _inner(arguments[1])):
        return found[0], f".KIND{found[1]}"
    if origin is list and (found := _inner(arguments[0])):
        return found[0], f"[]{found[1]}"
    if origin in (Annotated, Union, types.UnionType):
        return next((found for argument in arguments if (found := _inner(argument))), None)
    return None


def _takes(field: FieldInfo) -> str:
    bounds = ", ".join(_bounds(field.metadata))
    kind, null, _ = _type(field.annotation).partition(" | null")
    return (f"{kind} {bounds}" if bounds else kind) + null


def _bounds(metadata: Sequence[Any]) -> Iterator[str]:
    for constraint in metadata:
        for name, sign in _BOUNDS.items():
            if hasattr(constraint, name):
                yield f"{sign} {getattr(constraint, name)}"


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [bound for argument in arguments[1:] for bound in _bounds(getattr(argument, "metadata", ()))]
        return " ".join([_type(arguments[0]), ", ".join(inner)]).strip()
    if origin is Literal:
        return " | ".join(str(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(_type(argument) for argument in arguments))
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(_type(argument) for argument in arguments)}]"
    if origin is dict:
        return f"mapping of {_type(arguments[1])}"
    return _NAMES.get(annotation, str(annotation))


def _default(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    value = field.default
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return f"[{', '.join(f'{part:g}' if isinstance(part, float) else str(part) for part in value)}]"
    if value == "":
        return "''"
    if isinstance(value, Section):
        return "the defaults below"
    return f"{value:g}" if isinstance(value, float) else str(value)
