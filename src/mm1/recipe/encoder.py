"""The schema of an image encoder's recipe: what differs from a multimodal model's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from mm1.recipe.schema import (
    Attention,
    DataRecipe,
    RunRecipe,
    Section,
    TokenizerRecipe,
    TrainRecipe,
    VisionRecipe,
    name_to_from,
)


class TextTowerRecipe(Section):
    """The text tower of a contrastive encoder, from scratch: CLIP's for ViT-B (arXiv 2103.00020 table 20)."""

    hidden_size: int = Field(512, gt=0)
    num_layers: int = Field(12, gt=0)
    num_heads: int = Field(8, gt=0)
    attention: Attention | Annotated[list[Attention], Field(min_length=1)] = "sdpa"


class EncoderModelRecipe(Section):
    """The towers."""

    from_: str | None = Field(
        None,
        alias="from",
        description="A contrastive run, or the folder or Hub id of a CLIP model, to go on from: both towers and the "
        "tokenizer are its own; of the keys below only vision.image_size and the attentions count.",
    )
    vision: Annotated[VisionRecipe, BeforeValidator(name_to_from)] = VisionRecipe()
    text: TextTowerRecipe = TextTowerRecipe()
    projection_size: int = Field(
        512, gt=0, description="Width of the space that both towers meet in (2103.00020 table 20: 512 for ViT-B)."
    )

    @property
    def tokenizer_from(self) -> str | None:
        """The two-tower model that brings its tokenizer; None: the tokenizer is trained on the captions."""
        return self.from_


class ObjectiveRecipe(Section):
    """What the encoder learns from."""

    kind: Literal["clip", "siglip", "aim"] = Field(
        "clip",
        description="`clip`: symmetric softmax (arXiv 2103.00020); `siglip`: sigmoid of every pair (arXiv 2303.15343); "
        "`aim`: autoregressive patches (arXiv 2401.08541).",
    )
    temperature: float | None = Field(
        None,
        gt=0,
        description="At the start; default 0.07 for clip (2103.00020 sec. 2.5), 0.1 for siglip (2303.15343).",
    )
    bias: float = Field(-10.0, description="siglip: of the logits at the start (arXiv 2303.15343 sec. 3.2).")
    max_scale: float = Field(
        100.0, gt=0, description="Logits are never scaled by more, as 1 / temperature (2103.00020 sec. 2.5)."
    )
    local_loss: bool = Field(
        True,
        description="Every rank computes the logits of its own rows; false: all of them, the same loss in more memory.",
    )
    head_depth: int = Field(12, ge=0, description="aim: MLP blocks on top of the tower (recalled from the paper).")

    @property
    def contrastive(self) -> bool:
        """Whether pictures and captions are told apart from others of the batch."""
        return self.kind != "aim"


class EncoderDataRecipe(DataRecipe):
    """Pictures with their captions: every sequence is one of them."""

    sequence_length: int = Field(
        77, gt=3, description="Tokens of a caption, begin and end included; longer ones are cut (CLIP's: 77)."
    )
    images_per_sequence: int = Field(1, ge=1, le=1, description="Always 1.")
    crop_area: tuple[float, float] = Field(
        (0.9, 1.0), description="Random crops hold this share of the picture (open_clip's default); [1, 1]: no crop."
    )
    crop_ratio: tuple[float, float] = Field(
        (3 / 4, 4 / 3), description="Width by height of random crops (Inception's)."
    )
    flip: float = Field(0.0, ge=0, le=1, description="Share of the pictures that are mirrored (CLIP: none).")

    @model_validator(mode="after")
    def _ranges(self) -> EncoderDataRecipe:
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_area [{low}, {high}] must be two shares, the smaller first, at most 1")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio {list(self.crop_ratio)} must be two positive numbers, the smaller first")
        for kind, mix in self.mixture.items():
            if mix.images_per_sequence not in (None, 1):
                raise ValueError(
                    f"mixture.{kind}.images_per_sequence: an encoder sees one picture at a time: leave it out"
                )
        return self


class ZeroShotRecipe(Section):
    """Pictures told apart by the names of their classes."""

    corpus: str = Field(description="`corpus/split` of labelled pictures.")
    label: str = Field(description="The documents' meta key that holds the class, which is also its name.")
    names: str | None = Field(None, description="JSON file: the classes' names by label, where labels are codes.")
    templates: list[str] = Field(["a photo of a {}."], min_length=1, description="`{}` stands for the class's name.")

    @model_validator(mode="after")
    def _places(self) -> ZeroShotRecipe:
        if without := [template for template in self.templates if "{}" not in template]:
            raise ValueError(f"templates: '{without[0]}' has no {{}} for the class's name")
        return self


class ProbeRecipe(Section):
    """A linear classifier on the frozen tower."""

    train: str = Field(description="`corpus/split` that the classifier is fitted on.")
    test: str = Field(description="`corpus/split` that it is scored on.")
    label: str = Field(description="The documents' meta key that holds the class.")


class EncoderEvaluateRecipe(Section):
    """What an encoder is scored on."""

    retrieval: list[str] = Field([], description="`corpus/split` of captioned pictures that are found by one another.")
    zero_shot: list[ZeroShotRecipe] = Field([], description="Needs a text tower.")
    probe: list[ProbeRecipe] = Field([], description="Needs scikit-learn.")
    limit: int | None = Field(None, gt=0, description="Pictures of a split, at most (the first of a seeded shuffle).")
    batch_size: int = Field(256, gt=0)


class EncoderRecipe(RunRecipe):
    """Everything about a run that trains an image encoder."""

    objective: ObjectiveRecipe = ObjectiveRecipe()
    model: EncoderModelRecipe = EncoderModelRecipe()
    tokenizer: TokenizerRecipe = TokenizerRecipe()
    data: EncoderDataRecipe
    train: TrainRecipe
    evaluate: EncoderEvaluateRecipe = EncoderEvaluateRecipe()

    @model_validator(mode="after")
    def _fits(self) -> EncoderRecipe:
        train = self.train
        if train.learning_rate is None:
            raise ValueError(
                "train.learning_rate is missing: the rule from the decoder's size doesn't hold for an encoder (CLIP: "
                "4e-4 for ViT-L/14, AIM: 1e-3)"
            )
        for key, used in (
            ("freeze", bool(train.freeze)),
            ("z_loss", train.z_loss > 0),
            ("vision_learning_rate", train.vision_learning_rate is not None),
        ):
            if used:
                raise ValueError(f"train.{key} is of the multimodal model: an encoder's recipe can't have it")
        if not self.objective.contrastive:
            if self.model.from_ is not None:
                raise ValueError("model.from is of contrastive encoders: give AIM a tower by model.vision.from")
            return self
        if train.batch_size < 2:
            raise ValueError(
                "train.batch_size 1 is too small for a contrastive loss: there is nothing to tell a pair from"
            )
        if train.micro_batch_size is not None and train.micro_batch_size != train.batch_size:
            raise ValueError(
                f"train.micro_batch_size {train.micro_batch_size}: a contrastive loss compares the whole batch at "
                "once, micro-batches would make it another loss: leave it out; use more ranks, a smaller batch or "
                "train.activation_checkpointing if memory is short"
            )
        return self
