"""No address (`s3://`) where a command needs a file or folder of a disk: wherever its parameter is a `Path`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from mm1.errors import UserError

_OF_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)  # a path joins the slashes


def refuse_addresses(app: typer.Typer) -> None:
    """Let all commands of an app refuse addresses as values of parameters that are paths.

    Args:
        app: The app, with all its commands.
    """
    for command in app.registered_commands:
        assert command.callback is not None
        command.callback = _refusing(command.callback)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        refuse_addresses(group.typer_instance)


def _refusing(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def checked(*args: Any, **values: Any) -> Any:
        for value in values.values():
            for path in value if isinstance(value, list) else [value]:
                check_on_disk(path)
        return command(*args, **values)

    return checked


def check_on_disk(value: Any) -> None:
    """Check that a value is no address that was made a path.

    Raises:
        UserError: If it is.
    """
    if isinstance(value, Path) and (found := _OF_ADDRESS.match(str(value))):
        address = f"{found[0]}/{str(value)[found.end() :]}"
        raise UserError(
            f"{address}: a file or folder of a disk is needed here: name one, and copy between it and the store "
            "(aws s3 cp --recursive, say; a model with mm1 push)"
        )
