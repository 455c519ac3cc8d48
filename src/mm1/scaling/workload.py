"""What a step of training processes, from the recipe alone: a plan knows it exactly, a budget comes before the data."""

from __future__ import annotations

from dataclasses import dataclass

from mm1.recipe import Recipe


@dataclass(frozen=True)
class Workload:
    """What the sequences of a run hold, on average and at most.

    Sequences are taken as full: as many images as the recipe allows, and text for the rest. With the paper's recipe
    that gives its million text and million image tokens a step.

    Attributes:
        sequences: Per step.
        steps: Of the run.
        length: Tokens of a sequence, those of images included.
        images: Mean images of a sequence.
        most_images: Most images of a sequence.
        target_tokens: Mean target tokens of a sequence: those that are not an image's.
        pairs: How many times a token of a sequence attends to one.
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
    """Return what a recipe's sequences hold.

    Args:
        recipe: Mixture, limits, batch, steps.
        tokens_per_image: As the decoder reads them.
        document_length: Tokens of a document, outside of which its tokens attend to nothing; default: the whole
            sequence, an upper bound.
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
