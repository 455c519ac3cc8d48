"""The section `train.lora`: fine-tuning by low-rank adapters (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field

from mm1.recipe.section import Section


class LoraRecipe(Section):
    """Low-rank adapters on the linear layers of some parts, whose own weights stay as they are."""

    rank: int = Field(
        16, gt=0, description="Inner width of an adapter: it adds (alpha / rank) B A to a layer's weight."
    )
    alpha: int | None = Field(None, gt=0, description="Scale of the adapters; default: twice the rank.")
    targets: Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="Names of the linear layers that get adapters, such as q_proj or self_attn.q_proj; null: all that "
        "every block has (arXiv 2305.14314 sec. 4: all layers are needed to match full fine-tuning).",
    )
    parts: Annotated[list[Literal["vision", "language_model"]], Field(min_length=1)] = Field(
        ["language_model"],
        description="Parts with adapters. The others train whole, unless train.freeze names them.",
    )

    @property
    def scale(self) -> int:
        """The value of `alpha`."""
        return 2 * self.rank if self.alpha is None else self.alpha

    def check_beside(self, freeze: Collection[str]) -> None:
        """Check that the parts without adapters can train, or not, as a recipe says.

        Args:
            freeze: The recipe's `train.freeze`.

        Raises:
            ValueError: If a part has adapters and is frozen, or the decoder has no adapters and is not frozen.
        """
        both = [part for part in self.parts if part in freeze]
        if both:
            raise ValueError(
                f"freeze and lora.parts both name {both[0]}: leave it out of freeze, since the weights of a part with "
                "adapters stay as they are anyway"
            )
        if "language_model" not in {*self.parts, *freeze}:
            raise ValueError(
                "lora.parts leaves language_model out, which would train whole: add it to lora.parts or to freeze"
            )
