"""Estimates the content of a training step from the recipe alone; only a plan, which needs the data, is exact."""

from __future__ import annotations

from dataclasses import dataclass

from mm1.recipe import Recipe


@dataclass(frozen=True)
class Workload:
    """The content of a run's sequences, on average and at most.

    The estimate assumes full sequences: as many images as the recipe allows, and text for the rest. With the paper's
    recipe this gives a million text tokens and a million image tokens per step, as in the paper.

    Attributes:
        sequences: Sequences per step.
        steps: Steps of the run.
        length: Tokens per sequence, image tokens included.
        images: Mean number of images per sequence.
        most_images: Largest number of images per sequence.
        target_tokens: Mean number of target tokens per sequence: all but image tokens.
        pairs: Number of pairs of tokens per sequence of which one attends to the other.
    """

    sequences: int
    steps: int
    length: int
    images: float
    most_images: int
    target_tokens: float
    pairs: float

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.steps * self.sequences * self.length


def recipe_workload(recipe: Recipe, tokens_per_image: int, document_length: int | None = None) -> Workload:
    """Return the content of a recipe's sequences.

    Args:
        recipe: Gives mixture, limits, batch and steps.
        tokens_per_image: Image tokens per image.
        document_length: Tokens per document; attention stays inside a document. Default: the whole sequence, which
            gives an upper bound.
    """
    data, length = recipe.data, recipe.data.sequence_length
    images = {
        kind: 0 if kind == "text" else min(data.max_images(kind), length // tokens_per_image)
        for kind, mix in data.mixture.items()
        if mix.weight > 0
    }
    weights = {kind: data.mixture[kind].weight for kind in images}
    mean = sum(weights[kind] * images[kind] for kind in images) / sum(weights.values())
    document = min(document_length or length, length) if data.document_mask else length
    return Workload(
        sequences=recipe.train.batch_size,
        steps=recipe.train.steps,
        length=length,
        images=mean,
        most_images=max(images.values()),
        target_tokens=length - mean * tokens_per_image,
        pairs=length * (document + 1) / 2,
    )
