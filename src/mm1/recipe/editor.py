"""The schema of recipes for editors, which then complete keys and mark wrong ones while a recipe is written.

mm1 recipe schema > recipe.schema.json
# yaml-language-server: $schema=recipe.schema.json        (the first line of a recipe)
"""

from __future__ import annotations

from typing import Any

from mm1.recipe.encoder import EncoderRecipe
from mm1.recipe.schema import Recipe


def editor_schema(schema: type[Recipe] | type[EncoderRecipe]) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a recipe's file.

    A file may extend another recipe by `base` and leave out what that one has, so nothing below the top is required.
    The rules over several keys, such as warm-up and steps, are not in it: commands check those.

    Args:
        schema: A recipe's or an encoder's.
    """
    made = schema.model_json_schema(by_alias=True)
    for section in (made, *made["$defs"].values()):
        section.pop("required", None)
    made["properties"]["base"] = {"type": "string", "description": "Recipe that this one extends: a name or a file."}
    whole = [name for name, field in schema.model_fields.items() if field.is_required()]
    made["anyOf"] = [{"required": ["base"]}, {"required": whole}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}
