"""Recipes of both kinds, of a multimodal model and of an image encoder, where a command takes either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mm1.recipe.encoder import EncoderRecipe
from mm1.recipe.load import RECIPES, check_recipe, packaged_recipes
from mm1.recipe.schema import Recipe


def schema_of(content: dict[str, Any]) -> type[Recipe] | type[EncoderRecipe]:
    """Return the schema of a recipe's content: an encoder's has an objective."""
    return EncoderRecipe if "objective" in content else Recipe


def load_any_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe | EncoderRecipe:
    """Read a recipe of either kind, apply overrides, check it; see `mm1.recipe.load_recipe`."""
    content = RECIPES.read(name_or_path)
    return check_recipe(content, overrides, name_or_path, schema_of(content))


def command_of(content: dict[str, Any]) -> str:
    """Return the command that trains by a recipe's content: `encoder`, `sft` or `pretrain`."""
    if schema_of(content) is EncoderRecipe:
        return "encoder"
    chats = content.get("data", {}).get("mixture", {}).get("chat")
    return "sft" if chats else "pretrain"


def recipe_list() -> list[tuple[str, str, str]]:
    """Return the packaged recipes: name, the command that trains by it, and what it is."""
    return [(name, command_of(RECIPES.read(name)), RECIPES.title(name)) for name in packaged_recipes()]
