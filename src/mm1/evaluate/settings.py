"""The settings of a scoring as one object, from the command line or a caller down to the scorer of one task."""

from __future__ import annotations

from pydantic import Field

from mm1.recipe import EvaluateRecipe


class EvaluationSettings(EvaluateRecipe):
    """A recipe's section `evaluate`, and settings that a recipe has no key for.

    But for rounding, scores do not depend on `batch_size`, `device` and `ranks_per_model`. A result's protocol contains
    all that they depend on.
    """

    seed: int = Field(0, ge=0, description="Seed of the choice of items, shots, swapped pictures and resamples.")
    draws: int = Field(1, gt=0, description="Number of draws of shots; the score is the mean over draws.")
    device: str = Field("auto", description="`auto` (a GPU if there is one), or a torch device.")
    dtype: str = Field("auto", description="`auto` (float32 on CPU, bfloat16 on GPU), or a torch dtype's name.")
    quantize: str | None = Field(None, description="Precision of the decoder's weights: int8 or int4.")
    ranks_per_model: int = Field(1, gt=0, description="Number of ranks that hold one model between them.")

    def over(self, recipe: EvaluateRecipe) -> EvaluationSettings:
        """Return these settings, with those that aren't set taken from a recipe."""
        return EvaluationSettings.model_validate({**recipe.model_dump(), **self.model_dump(exclude_unset=True)})
