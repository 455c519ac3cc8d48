"""What `--help` says: every command in its panel, every option with what it does and its default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from mm1.cli import PANELS, app
from mm1.version import __version__


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments, prog_name="mm1", env={"COLUMNS": "150"}, catch_exceptions=False)


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield all commands below a group with the words that call them."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_the_version() -> None:
    assert run("--version").output == f"mm1 {__version__}\n"


def test_the_panels_are_in_order() -> None:
    output = run("--help").output
    places = [output.index(f"─ {panel} ─") for panel in PANELS]
    assert places == sorted(places)
    assert "─ Commands ─" not in output  # where typer puts commands of no panel
    assert "--install-completion" in output


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_says_what_it_does(words: tuple[str, ...]) -> None:
    result = run(*words, "--help")
    assert result.exit_code == 0
    first = COMMANDS[words].help.split("\n\n")[0]
    assert first[0].isupper()
    assert first.endswith(".")


@pytest.mark.parametrize(
    ("words", "parameter"),
    [
        pytest.param(words, parameter, id=f"{' '.join(words)} {parameter.name}")
        for words, command in COMMANDS.items()
        for parameter in command.params
    ],
)
def test_every_parameter_says_what_it_is_and_its_default(words: tuple[str, ...], parameter: Any) -> None:
    assert parameter.help, "no help"
    assert parameter.help[0].isupper() or parameter.help.startswith("float32")
    assert parameter.help.endswith(".")
    # typer shows the defaults that are constants. A flag's is False, which it does not show.
    shown = parameter.required or (parameter.default is not None and not isinstance(parameter.default, bool))
    assert shown or "Default: " in parameter.help
