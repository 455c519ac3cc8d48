"""Supervised fine-tuning: the loop of pre-training on conversations, starting from a trained model.

The paper (sec. 4) fine-tunes everything, the tower included; the packaged recipe `sft` has its numbers. It doesn't say
which tokens of a conversation are targets: here the answers are, as in LLaVA.
"""

from __future__ import annotations

from pathlib import Path

from mm1.errors import UserError
from mm1.recipe import Recipe
from mm1.train.pretrain import pretrain


def fine_tune(recipe: Recipe, directory: Path) -> Path:
    """Fine-tune a model on conversations, or resume an interrupted run.

    Args:
        recipe: The recipe; its mixture has chat, and it names a model to start from.
        directory: The run's directory.

    Returns:
        The folder of the model.

    Raises:
        UserError: If the recipe starts from scratch or has no conversations; see also `mm1.train.pretrain.pretrain`.
    """
    check_fine_tuning(recipe)
    return pretrain(recipe, directory)


def check_fine_tuning(recipe: Recipe) -> None:
    """Check that a recipe fine-tunes.

    Raises:
        UserError: If it starts from scratch or has no conversations.
    """
    chat = recipe.data.mixture.get("chat")
    if chat is None or not chat.weight:
        raise UserError(
            f"recipe '{recipe.name}': fine-tuning needs conversations: add the kind chat to data.mixture (other kinds "
            "may stay)"
        )
    if recipe.model.from_ is None and recipe.model.language_model.from_ is None:
        raise UserError(
            f"recipe '{recipe.name}': fine-tuning needs a trained model to start from: set model.from to a run's "
            "directory, or model.language_model.from (and model.vision.from) to pre-trained parts"
        )
