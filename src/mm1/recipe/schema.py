"""The schema of a recipe: every key with its default and the source of every number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, model_validator

from mm1.document import Kind
from mm1.nearest import did_you_mean
from mm1.recipe.decoder_sizes import DECODER_SIZES
from mm1.recipe.section import Section
from mm1.recipe.train import TrainRecipe
from mm1.recipe.vit_sizes import VIT_SIZES

Attention = Literal["sdpa", "eager", "flex_attention", "flash_attention_2"]
"""Implementations of attention, by the names in `transformers`. For small vision towers in bfloat16 on a CPU `eager`
is several times faster than `sdpa`."""
DecoderAttention = Attention | Literal["varlen", "sdpa_packed"]
"""`varlen` computes the documents of packed rows without a mask, and is the fastest. `sdpa_packed`: its older name."""


def name_to_from(value: Any) -> Any:
    """Expand `language_model: smollm2` to `language_model: {from: smollm2}`."""
    return {"from": value} if isinstance(value, str) else value


def _with_sizes(data: Any, shapes: Mapping[str, Mapping[str, int]]) -> Any:
    """Return a section's keys with the sizes of the shape that its `size` names."""
    if not isinstance(data, dict) or data.get("size") is None:
        return data
    sizes = shapes.get(str(data["size"]))
    if sizes is None:
        raise ValueError(f"size '{data['size']}' is unknown: {did_you_mean(str(data['size']), shapes)}")
    for key, value in sizes.items():
        if data.get(key, value) != value:
            raise ValueError(f"size {data['size']} sets {key} to {value}, not {data[key]}: leave one of them out")
    return {**sizes, **data}


class VisionRecipe(Section):
    """The vision tower: a CLIP-type ViT from scratch, or a pre-trained ViT or convolutional network."""

    from_: str | None = Field(
        None,
        alias="from",
        description="`efficientnet-lite0`, `-lite1` or `-lite2`, or folder or Hub id of a pre-trained tower; "
        "null: from scratch.",
    )
    image_size: int = Field(
        336,
        gt=0,
        description="Side of the square input in pixels, a multiple of the tower's patch or stride (paper sec. 3.2: "
        "336; final 378).",
    )
    size: str | None = Field(
        None,
        description=f"Name of a shape, which sets the four sizes below: {', '.join(VIT_SIZES)}. Beside `from` it says "
        "the tower's shape, so that budgets need no files.",
    )
    patch_size: int = Field(14, gt=0, description="Side of a square patch in pixels (ViT-L/14 of the ablations).")
    hidden_size: int = Field(1024, gt=0, description="Width (ViT-L).")
    num_layers: int = Field(24, gt=0, description="Transformer blocks (ViT-L).")
    num_heads: int = Field(16, gt=0, description="Attention heads (ViT-L).")
    intermediate_size: int | None = Field(None, gt=0, description="Default: 4 x hidden_size.")
    feature_layer: int = Field(
        -1,
        description="The layer whose output the connector reads (-1: the last; convolutional towers have no other).",
    )
    attention: Attention | Annotated[list[Attention], Field(min_length=1)] = Field(
        "sdpa", description="One name, or several in order of preference: the first that works on the machine is used."
    )

    @model_validator(mode="before")
    @classmethod
    def _named_size(cls, data: Any) -> Any:
        """Fill in the sizes of a named shape."""
        return _with_sizes(data, VIT_SIZES)


class ConnectorRecipe(Section):
    """The vision-language connector."""

    kind: Literal["average_pool", "attention_pool", "c_abstractor", "mlp"] = Field(
        "c_abstractor", description="Type (paper sec. 3.2: the C-Abstractor; `mlp` keeps every patch)."
    )
    num_tokens: int = Field(144, gt=0, description="Image tokens per image (paper sec. 3.2: 144).")
    depth: int = Field(3, gt=0, description="C-Abstractor: blocks before and after the pooling (Honeybee: 3).")
    hidden_size: int | None = Field(
        None, gt=0, description="Inner width; default 1024 for the C-Abstractor (Honeybee), else the decoder's."
    )
    mlp_depth: int = Field(2, gt=0, description="C-Abstractor and MLP: linear layers (Honeybee, LLaVA-1.5: 2).")
    positions: bool = Field(True, description="C-Abstractor: learned position embeddings on the patches (Honeybee).")
    num_heads: int | None = Field(None, gt=0, description="Attention pooling: heads; default one per 64 channels.")


class LanguageModelRecipe(Section):
    """The decoder: Llama-type from scratch, or pre-trained weights."""

    from_: str | None = Field(
        None, alias="from", description="`smollm2`, or folder or Hub id of a pre-trained decoder; null: from scratch."
    )
    architecture: Literal["llama", "qwen2", "qwen3", "smollm3", "olmo2"] = Field(
        "llama", description="Family of a decoder from scratch; a pre-trained decoder keeps its own."
    )
    size: str | None = Field(
        None,
        description=f"Name of a shape, which sets the five sizes below: {', '.join(DECODER_SIZES)}. Beside `from` it "
        "says the decoder's shape, so that budgets need no files.",
    )
    hidden_size: int = Field(2048, gt=0, description="Width.")
    num_layers: int = Field(24, gt=0, description="Transformer blocks.")
    num_heads: int = Field(16, gt=0, description="Attention heads.")
    num_kv_heads: int | None = Field(None, gt=0, description="Heads of keys and values; default: num_heads.")
    intermediate_size: int | None = Field(None, gt=0, description="Default: 8/3 x hidden_size, in multiples of 64.")
    tie_embeddings: bool = Field(True, description="Whether the head shares the weights of the token embeddings.")
    attention: DecoderAttention | Annotated[list[DecoderAttention], Field(min_length=1)] = Field(
        "sdpa", description="As for the vision tower; default in training: the fastest, `varlen` or `eager`."
    )
    max_positions: int = Field(
        4096, gt=0, description="Longest sequence that the decoder's configuration allows (paper sec. 3: 4096)."
    )
    num_experts: int = Field(
        0, ge=0, description="Experts of a sparse layer (paper sec. 3.4: 64 and 32); 0: a dense decoder."
    )
    sparse_every: int = Field(
        2, gt=0, description="One layer in this many is sparse (paper sec. 3.4: 2 for 3B-MoE, 4 for 7B-MoE)."
    )
    experts_per_token: int = Field(2, gt=0, description="Experts that the router chooses (paper sec. 3.4: 2).")
    balance_loss: float = Field(0.01, ge=0, description="Weight of the load-balance loss (paper sec. 3.4).")
    router_z_loss: float = Field(0.001, ge=0, description="Weight of the router z-loss (paper sec. 3.4).")
    upcycle: bool = Field(
        True, description="Experts of a pre-trained decoder start as copies of its FFN (the paper doesn't say)."
    )

    @model_validator(mode="before")
    @classmethod
    def _named_size(cls, data: Any) -> Any:
        """Fill in the sizes of a named shape."""
        return _with_sizes(data, DECODER_SIZES)


Fit = Literal["squash", "pad"]
Overview = Literal["first", "last", "none"]

_GRID = re.compile(r"none|dynamic|([1-9]\d?)x([1-9]\d?)")


class ResolutionRecipe(Section):
    """How a picture of any size becomes square images of the tower's size (`mm1.processing.tiles`)."""

    fit: Fit = Field(
        "squash",
        description="How a picture becomes square: `squash` distorts it, `pad` adds borders (the paper doesn't say).",
    )
    grid: str = Field(
        "none",
        description="`none`: one image; ROWSxCOLUMNS: that many crops, as in 2x2 (paper sec. 4); `dynamic`: a grid "
        "chosen for each picture (MM1.5).",
    )
    overview: Overview = Field(
        "first", description="Place of the overview among the crops (paper sec. 4: first; MM1.5: last)."
    )
    min_tiles: int = Field(4, gt=0, description="`dynamic`: fewest crops (MM1.5: 4).")
    max_tiles: int = Field(9, gt=0, le=64, description="`dynamic`: most crops (MM1.5: 9 in training, 16 in use).")
    max_pictures: int | None = Field(
        None, gt=0, description="Documents with more pictures than this are not cut (MM1.5: 2); null: no limit."
    )
    min_side: int = Field(0, ge=0, description="Pictures with a longer side below this, in pixels, are not cut.")

    @model_validator(mode="after")
    def _possible(self) -> ResolutionRecipe:
        if not _GRID.fullmatch(self.grid):
            raise ValueError(f"grid '{self.grid}' is unknown: write none, dynamic or ROWSxCOLUMNS, such as 2x2")
        if self.min_tiles > self.max_tiles:
            raise ValueError(f"min_tiles {self.min_tiles} is more than max_tiles {self.max_tiles}")
        return self


_BROUGHT = {"connector": set(), "vision": {"image_size", "attention"}, "language_model": {"attention"}}
"""Keys that a recipe may set for the parts of the whole model that it starts `from`."""


class ModelRecipe(Section):
    """Vision tower, connector and decoder, separately or `from` a whole model."""

    from_: str | None = Field(
        None,
        alias="from",
        description="Run directory, folder or Hub id of a whole model to start from, with its tokenizer and processor. "
        "The recipe may still set vision.image_size (position embeddings are interpolated) and attention.",
    )
    vision: Annotated[VisionRecipe, BeforeValidator(name_to_from, json_schema_input_type=str | VisionRecipe)] = (
        VisionRecipe()
    )
    connector: ConnectorRecipe = ConnectorRecipe()
    language_model: Annotated[
        LanguageModelRecipe, BeforeValidator(name_to_from, json_schema_input_type=str | LanguageModelRecipe)
    ] = LanguageModelRecipe()
    resolution: ResolutionRecipe = ResolutionRecipe()
    chat_template: str | None = Field(
        None,
        description="File with a Jinja chat template, `package` or `decoder` (the decoder's own); default: the "
        "template of the model it starts from, else the package's if the mixture has chat.",
    )

    @model_validator(mode="after")
    def _whole_models_bring_their_parts(self) -> ModelRecipe:
        if self.from_ is not None:
            for part, free in _BROUGHT.items():
                given = getattr(self, part).model_fields_set - free if part in self.model_fields_set else set()
                if given:
                    key = min(given).removesuffix("_")
                    raise ValueError(f"the model '{self.from_}' brings its own {part}: leave {part}.{key} out")
        return self

    @property
    def tokenizer_from(self) -> str | None:
        """The whole model or decoder that brings the tokenizer; None: the run trains one on the corpora."""
        return self.from_ or self.language_model.from_

    @property
    def image_size(self) -> int | None:
        """Side of the tower's images in pixels; None: the value of the model that it starts `from`."""
        given = self.from_ is None or "image_size" in self.vision.model_fields_set
        return self.vision.image_size if given else None


class TokenizerRecipe(Section):
    """The tokenizer that the run trains. A pre-trained decoder brings its own instead."""

    vocab_size: int = Field(32_000, gt=300, description="Size of the byte-level BPE that is trained on the corpora.")


class BuildRecipe(Section):
    """How a split is built from a local copy or from the Hub (`mm1 data collect`)."""

    format: str = Field("questions", description="Format of a local copy (`mm1 data build --from`).")
    options: dict[str, str] = Field({}, description="The format's options, for a local copy.")
    fetch: bool = Field(False, description="Fetch pictures of pages that are given by web addresses (OBELICS).")
    limit: int | None = Field(
        None, gt=0, description="Most documents: the first, in the order of the files; null: all."
    )
    hub: str | None = Field(None, description="Hub dataset to use if there is no local copy.")
    subset: str = Field("", description="Configuration of the Hub dataset.")
    revision: str = Field(
        "", description="Commit or tag of the Hub dataset; default: the newest commit, which corpus.json then says."
    )


class SourceRecipe(Section):
    """One split of one corpus."""

    corpus: str = Field(
        description="`corpus/split` in the data directory, or the path of a split; `corpus/split@mask` takes what a "
        "mask leaves of it."
    )
    weight: float = Field(1.0, gt=0, description="Weight among the sources of the same kind.")
    build: BuildRecipe | None = Field(None, description="How `mm1 data collect` builds it.")


class KindRecipe(Section):
    """The sources of one kind of document and the kind's share of the training sequences."""

    weight: float = Field(ge=0, description="Share of the sequences (paper sec. 3.3: 0.45, 0.45, 0.10).")
    images_per_sequence: int | None = Field(
        None, gt=0, description="Most images per sequence of this kind; default: data.images_per_sequence."
    )
    sources: list[SourceRecipe] = Field(min_length=1, description="What the documents of the kind come from.")


class DataRecipe(Section):
    """Sequences and what they are drawn from."""

    sequence_length: int = Field(
        4096, gt=8, description="Tokens per packed sequence, image tokens included (paper sec. 3)."
    )
    images_per_sequence: int = Field(16, gt=0, description="Most images per packed sequence (paper sec. 3).")
    document_mask: bool = Field(True, description="Attention never crosses the border between documents of a sequence.")
    mixture: dict[Kind, KindRecipe] = Field(min_length=1, description="What is trained on, by kind of document.")
    workers: int = Field(0, ge=0, description="Processes that prepare batches; 0: the training process itself.")

    def max_images(self, kind: Kind) -> int:
        """Return the largest number of images that a sequence of a kind may have."""
        return self.mixture[kind].images_per_sequence or self.images_per_sequence

    @model_validator(mode="after")
    def _some_weight(self) -> DataRecipe:
        if not sum(kind.weight for kind in self.mixture.values()) > 0:
            raise ValueError("the weights of the mixture add up to 0: give at least one kind a weight above 0")
        return self


Shots = Annotated[int, Field(ge=0)]
"""A number of shots."""


class DuringRecipe(Section):
    """What is scored during training."""

    every: int = Field(gt=0, description="Steps between two scorings.")
    tasks: list[str] = Field([], description="Default: evaluate.tasks.")
    shots: list[Shots] = Field([0], description="Numbers of examples in the prompt.")
    limit: int | None = Field(200, gt=0, description="Most items per task.")


class EvaluateRecipe(Section):
    """What is scored after and during training."""

    tasks: list[str] = Field([], description="Names or files of tasks; `mm1 tasks` lists the packaged ones.")
    shots: list[Shots] = Field([0, 4, 8], description="Numbers of examples in the prompt (paper sec. 3: 0, 4, 8).")
    limit: int | None = Field(None, gt=0, description="Most items per task (the first of a seeded shuffle).")
    detailed_shots: int | None = Field(
        None,
        ge=0,
        description="Pictures are cut into sub-images only in this many last shots and in the query (3 recalled for "
        "the paper's mixed resolution); null: in all shots.",
    )
    plain: bool = Field(False, description="Prompt a chat model as a pre-trained one, not in a conversation.")
    right_answers: bool = Field(
        False, description="Also compute the log-likelihood of each right answer, which shows more than a coarse score."
    )
    batch_size: int = Field(64, gt=0, description="Prompts of a forward pass; it changes no score.")
    during: DuringRecipe | None = Field(None, description="Scoring of the current weights every so many steps.")

    @model_validator(mode="after")
    def _some_task(self) -> EvaluateRecipe:
        if self.during is not None and not (self.during.tasks or self.tasks):
            raise ValueError("neither during.tasks nor tasks names a task: name at least one")
        return self


class RunRecipe(Section):
    """The keys that every recipe has, for a multimodal model or an encoder."""

    name: str = Field(description="Name of the run; its directory is runs/NAME.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of weights, order of training and random crops.")

    def to_yaml(self) -> str:
        """Return the resolved recipe as YAML, with every default."""
        return yaml.safe_dump(self.model_dump(by_alias=True, mode="json"), sort_keys=False, allow_unicode=True)


class Recipe(RunRecipe):
    """The recipe of a run that trains a multimodal model."""

    model: ModelRecipe = ModelRecipe()
    tokenizer: TokenizerRecipe = TokenizerRecipe()
    data: DataRecipe
    train: TrainRecipe = TrainRecipe()
    evaluate: EvaluateRecipe = EvaluateRecipe()

    def to_yaml(self) -> str:
        """Return the resolved recipe as YAML, with every default except those of the parts that `model.from` brings."""
        content = self.model_dump(by_alias=True, mode="json")
        if self.model.from_ is not None:
            content["model"] = self.model.model_dump(by_alias=True, mode="json", exclude_unset=True)
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
