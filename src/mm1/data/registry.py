"""Things that are made by name and options: readers, steps of cleaning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from mm1.errors import UserError
from mm1.nearest import did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def make(registry: Mapping[str, type[T]], noun: str, name: str, options: Mapping[str, Any]) -> T:
    """Return the thing of a name, made with options.

    Args:
        registry: Dataclasses by name; their fields are the options, each with a default.
        noun: What the things are called in messages.
        name: Which one.
        options: Those not given have their defaults; lists stand for tuples, whole numbers for floats.

    Raises:
        UserError: If the name or an option is unknown, or an option's value is of the wrong type.
    """
    if name not in registry:
        raise UserError(f"no {noun} is called '{name}': {did_you_mean(name, registry)}")
    known = {field.name: field.default for field in dataclasses.fields(registry[name])}
    values = {option: tuple(value) if isinstance(value, list) else value for option, value in options.items()}
    for option, value in values.items():
        if option not in known:
            raise UserError(f"{noun} '{name}' has no option '{option}': {did_you_mean(option, known)}")
        if type(value) is not type(known[option]) and not (isinstance(known[option], float) and type(value) is int):
            wanted = "list" if isinstance(known[option], tuple) else type(known[option]).__name__
            raise UserError(
                f"option '{option}' of {noun} '{name}' must be of type {wanted} (given: {options[option]!r})"
            )
    return registry[name](**values)
