"""The directive `commands`: every command of mm1 with its arguments and options, from the code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer import Context
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from mm1.cli import app

Command = TyperCommand | TyperGroup


def reference() -> Iterator[str]:
    """Yield the lines of the reference, in Markdown."""
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    panel = ""
    for name in root.list_commands(Context(root)):
        command: Any = root.commands[name]
        if command.hidden:
            continue
        if command.rich_help_panel != panel:
            panel = command.rich_help_panel
            yield from (f"## {panel}", "")
        for path, each in _commands(f"mm1 {name}", command):
            yield from (f"### {path}", "", *_described(path, each), "")


def _commands(path: str, command: Command) -> Iterator[tuple[str, TyperCommand]]:
    """Yield a command, or those of a group, with the words that call it."""
    if isinstance(command, TyperGroup):
        for name, each in command.commands.items():
            yield from _commands(f"{path} {name}", each)  # type: ignore[arg-type]  # typer makes no others
    else:
        yield path, command


def _described(path: str, command: TyperCommand) -> Iterator[str]:
    options = [each for each in command.params if isinstance(each, TyperOption)]
    arguments = [each for each in command.params if isinstance(each, TyperArgument)]
    usage = [path, *map(_argument, arguments), *(["[OPTIONS]"] if options else [])]
    yield from (_markdown(command.help), "", "```text", " ".join(usage), "```", "")
    for argument in arguments:
        yield f"- `{_argument(argument)}`: {_markdown(argument.help)}"
    for option in options:
        if not option.hidden:
            yield _option(option)


def _argument(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _option(option: TyperOption) -> str:
    names = ", ".join((*option.opts, *option.secondary_opts))
    value = "" if option.is_flag else f" {option.metavar or option.display_type}"
    shown = option.show_default and not option.is_flag and option.default not in (None, "")
    default = f" Default: `{option.default}`." if shown else ""
    return f"- `{names}{value}`: {_markdown(option.help)}{default}"


def _markdown(text: str | None) -> str:
    """Return a help text as Markdown, without the marks for terminals."""
    return (text or "").split("\f")[0].replace("\b\n", "").replace("<", "\\<").strip()


class Commands(SphinxDirective):
    """Inserts the reference."""

    def run(self) -> list[nodes.Node]:
        """Return the parsed reference."""
        self.content = StringList(list(reference()), source="mm1 --help")
        return self.parse_content_to_nodes(allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
