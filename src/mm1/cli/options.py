"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from typing import Annotated, Any

import typer
import yaml

from mm1.errors import UserError

Set = Annotated[list[str] | None, typer.Option("--set", help="Change a key, as in train.steps=100; may be repeated.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; default: as many as there are cores.")]
Engine = Annotated[str, typer.Option(help="processes, or ray for a cluster.")]


def split_commas(text: str) -> list[str]:
    """Return the parts of `a,b,c`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_shots(text: str) -> list[int]:
    """Return the numbers of `0,4,8`."""
    parts = split_commas(text)
    if not parts or not all(part.isdigit() for part in parts):
        raise UserError(f"--shots {text}: give whole numbers with commas, such as 0,4,8")
    return [int(part) for part in parts]


def parse_options(settings: list[str] | None, option: str = "--set") -> dict[str, Any]:
    """Return `key=value` settings of an option as a mapping, values read as YAML."""
    options = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"{option} {setting}: write it as key=value, for example count=2000")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"{option} {setting}: the value is not valid YAML") from None
    return options
