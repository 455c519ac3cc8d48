"""Supervised fine-tuning: the loop of pre-training, with conversations and from a trained model.

The paper (sec. 4) fine-tunes everything, tower included; the packaged recipe `sft` has its numbers. It does not say
what the targets of a conversation are: here the answers, as in LLaVA.
"""

from __future__ import annotations

from pathlib import Path

from mm1.errors import UserError
from mm1.recipe import Recipe
from mm1.train.pretrain import pretrain


def fine_tune(recipe: Recipe, directory: Path) -> Path:
    """Fine-tune a model on conversations, or go on where an interrupted run stopped.

    Args:
        recipe: Has a mixture with chat and says where its weights start.
        directory: The run's.

    Returns:
        The folder of the model.

    Raises:
        UserError: If the recipe starts from nothing, or has no conversations; see also `mm1.train.pretrain.pretrain`.
    """
    chat = recipe.data.mixture.get("chat")
    if chat is None or not chat.weight:
        raise UserError(
            f"recipe '{recipe.name}': fine-tuning needs conversations: give data.mixture the kind chat (other kinds "
            "may be mixed in)"
        )
    if recipe.model.from_ is None and recipe.model.language_model.from_ is None:
        raise UserError(
            f"recipe '{recipe.name}': fine-tuning starts from a trained model: set model.from to a run's directory, or "
            "model.language_model.from (and model.vision.from) to pre-trained parts"
        )
    return pretrain(recipe, directory)
