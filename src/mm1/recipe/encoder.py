"""The schema of an image encoder's recipe, where it differs from a multimodal model's."""

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

    hidden_size: int = Field(512, gt=0, description="Width.")
    num_layers: int = Field(12, gt=0, description="Transformer blocks.")
    num_heads: int = Field(8, gt=0, description="Attention heads.")
    attention: Attention | Annotated[list[Attention], Field(min_length=1)] = Field(
        "sdpa", description="As for the vision tower."
    )


class EncoderModelRecipe(Section):
    """The towers."""

    from_: str | None = Field(
        None,
        alias="from",
        description="Contrastive run, or folder or Hub id of a CLIP model, to start from. It brings both towers and "
        "the tokenizer; of the keys below only vision.image_size and the attentions have an effect.",
    )
    vision: Annotated[VisionRecipe, BeforeValidator(name_to_from, json_schema_input_type=str | VisionRecipe)] = (
        VisionRecipe()
    )
    text: TextTowerRecipe = TextTowerRecipe()
    projection_size: int = Field(
        512, gt=0, description="Width of the space shared by both towers (2103.00020 table 20: 512 for ViT-B)."
    )

    @property
    def tokenizer_from(self) -> str | None:
        """The two-tower model that brings the tokenizer; None: the run trains one on the captions."""
        return self.from_


class ObjectiveRecipe(Section):
    """The training objective."""

    kind: Literal["clip", "siglip", "aim"] = Field(
        "clip",
        description="`clip`: symmetric softmax (arXiv 2103.00020); `siglip`: sigmoid of every pair (arXiv 2303.15343); "
        "`aim`: autoregressive patches (arXiv 2401.08541).",
    )
    temperature: float | None = Field(
        None,
        gt=0,
        description="Initial temperature; default 0.07 for clip (2103.00020 sec. 2.5), 0.1 for siglip (2303.15343).",
    )
    bias: float = Field(-10.0, description="siglip: initial bias of the logits (arXiv 2303.15343 sec. 3.2).")
    max_scale: float = Field(
        100.0, gt=0, description="Largest scale of the logits, which is 1 / temperature (2103.00020 sec. 2.5)."
    )
    local_loss: bool = Field(
        True,
        description="Each rank computes the logits of its own rows only; false: of all rows (same loss, more memory).",
    )
    head_depth: int = Field(12, ge=0, description="aim: MLP blocks on top of the tower (recalled from the paper).")

    @property
    def contrastive(self) -> bool:
        """Whether the loss contrasts pictures and captions with the others of the batch."""
        return self.kind != "aim"


class EncoderDataRecipe(DataRecipe):
    """Pictures with their captions; every sequence is one pair."""

    sequence_length: int = Field(
        77, gt=3, description="Tokens per caption, begin and end included; longer captions are cut (CLIP: 77)."
    )
    images_per_sequence: int = Field(1, ge=1, le=1, description="Always 1.")
    crop_area: tuple[float, float] = Field(
        (0.9, 1.0), description="Share of the picture that a random crop covers (open_clip's default); [1, 1]: no crop."
    )
    crop_ratio: tuple[float, float] = Field(
        (3 / 4, 4 / 3), description="Width by height of random crops (as in Inception)."
    )
    flip: float = Field(0.0, ge=0, le=1, description="Share of the pictures that are mirrored (CLIP: 0).")

    @model_validator(mode="after")
    def _ranges(self) -> EncoderDataRecipe:
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_area [{low}, {high}] must be two shares above 0 and at most 1, the smaller first")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio {list(self.crop_ratio)} must be two positive numbers, the smaller first")
        for kind, mix in self.mixture.items():
            if mix.images_per_sequence not in (None, 1):
                raise ValueError(
                    f"mixture.{kind}.images_per_sequence: an encoder's sequence has one picture: leave the key out"
                )
        return self


class ZeroShotRecipe(Section):
    """Zero-shot classification: the names of the classes are the captions."""

    corpus: str = Field(description="`corpus/split` of labelled pictures.")
    label: str = Field(description="The documents' meta key with the label, which is the class's name too.")
    names: str | None = Field(None, description="JSON file with the class's name for each label, if labels are codes.")
    templates: list[str] = Field(["a photo of a {}."], min_length=1, description="`{}` stands for the class's name.")

    @model_validator(mode="after")
    def _places(self) -> ZeroShotRecipe:
        if without := [template for template in self.templates if "{}" not in template]:
            raise ValueError(f"templates: '{without[0]}' has no {{}} for the class's name")
        return self


class ProbeRecipe(Section):
    """A linear classifier on the frozen tower."""

    train: str = Field(description="`corpus/split` to fit the classifier on.")
    test: str = Field(description="`corpus/split` to score it on.")
    label: str = Field(description="The documents' meta key with the class.")


class EncoderEvaluateRecipe(Section):
    """What an encoder is scored on."""

    retrieval: list[str] = Field(
        [], description="`corpus/split` of captioned pictures for retrieval, image to text and text to image."
    )
    zero_shot: list[ZeroShotRecipe] = Field([], description="Needs a text tower.")
    probe: list[ProbeRecipe] = Field([], description="Needs scikit-learn.")
    limit: int | None = Field(None, gt=0, description="Most pictures per split (the first of a seeded shuffle).")
    batch_size: int = Field(256, gt=0, description="Pictures or captions of a forward pass; it changes no score.")


class EncoderRecipe(RunRecipe):
    """The recipe of a run that trains an image encoder."""

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
                "train.learning_rate is missing: the law from the decoder's size doesn't hold for an encoder: set it "
                "(CLIP: 4e-4 for ViT-L/14, AIM: 1e-3)"
            )
        for key, used in (
            ("freeze", bool(train.freeze)),
            ("lora", train.lora is not None),
            ("z_loss", train.z_loss > 0),
            ("vision_learning_rate", train.vision_learning_rate is not None),
        ):
            if used:
                raise ValueError(f"train.{key} is for multimodal training only: leave it out of an encoder's recipe")
        if not self.objective.contrastive:
            if self.model.from_ is not None:
                raise ValueError("model.from is for contrastive encoders only: for AIM set model.vision.from instead")
            return self
        if train.batch_size < 2:
            raise ValueError(
                "train.batch_size 1 is too small for a contrastive loss, which compares pairs: set it to 2 or more"
            )
        if train.micro_batch_size is not None and train.micro_batch_size != train.batch_size:
            raise ValueError(
                f"train.micro_batch_size {train.micro_batch_size}: a contrastive loss compares the whole batch at "
                "once, and micro-batches would change it: leave the key out; if memory is short, use more ranks, a "
                "smaller batch or train.activation_checkpointing"
            )
        return self
