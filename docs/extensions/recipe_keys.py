"""The directive `recipe-keys`: every key of a kind of recipe, from its schema."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from mm1.recipe import EncoderRecipe, Recipe
from mm1.recipe.keys import Key, recipe_keys
from mm1.recipe.section import Section

KINDS: dict[str, type[Section]] = {"training": Recipe, "encoder": EncoderRecipe}


def reference(schema: type[Section]) -> Iterator[str]:
    """Yield the lines of the reference, in Markdown: a heading for each section, a line for each key."""
    for section, keys in groupby(
        recipe_keys(schema), lambda key: key.name.partition(".")[0] if "." in key.name else ""
    ):
        yield from (f"### {section or 'the recipe itself'}", "")
        yield from map(_line, keys)
        yield ""


def _line(key: Key) -> str:
    default = "has to be given" if key.default is None else f"default `{key.default}`"
    return f"- `{key.name}` ({key.takes}; {default}): {key.description}".replace("<", "\\<").rstrip(": ")


class RecipeKeys(SphinxDirective):
    """Inserts the keys of the kind of recipe that its argument names."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the parsed reference."""
        lines = list(reference(KINDS[self.arguments[0]]))
        self.content = StringList(lines, source="mm1 recipe keys")
        return self.parse_content_to_nodes(allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("recipe-keys", RecipeKeys)
    return {"parallel_read_safe": True}
