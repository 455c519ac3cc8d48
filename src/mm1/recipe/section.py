"""What all sections of a recipe have in common."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A section of a recipe; an unknown key is an error, and so is a number that is none or has no end."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, content: Any) -> Any:
        if isinstance(content, dict):
            for name, field in cls.model_fields.items():
                value = content.get(field.alias or name, content.get(name))
                if (
                    isinstance(value, bool)
                    and not {bool, Any} & (kinds := _kinds(field.annotation))
                    and kinds & _NUMBERS
                ):
                    raise ValueError(
                        f"{field.alias or name} is a number (given: {value}, as which YAML also reads yes, no, on and "
                        "off): write the number"
                    )
        return content


_NUMBERS = {int, float}


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that a value may have by itself, without those in lists and mappings."""
    if getattr(annotation, "__origin__", None) in (list, tuple, dict):
        return set()
    inner = get_args(annotation)
    return {kind for one in inner for kind in _kinds(one)} if inner else {annotation}
