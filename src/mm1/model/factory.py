"""From a recipe to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel

from mm1.errors import UserError
from mm1.model.configuration import MM1Config
from mm1.model.modeling import MM1ForConditionalGeneration
from mm1.model.pretrained import PACKAGED, first_line, pretrained_config
from mm1.model.sparse import upcycle
from mm1.model.towers import build_tower
from mm1.recipe import LanguageModelRecipe, ModelRecipe


def build_model(
    recipe: ModelRecipe,
    *,
    vocab_size: int,
    image_token_id: int,
    bos_token_id: int | None = None,
    eos_token_id: int | None = None,
    pad_token_id: int | None = None,
    seed: int = 0,
    language_model: Path | str | None = None,
) -> MM1ForConditionalGeneration:
    """Build the model a recipe describes: what is not pre-trained gets fresh weights.

    Args:
        recipe: The recipe's `model` section.
        vocab_size: Length of the tokenizer. A pre-trained decoder's vocabulary is grown to it where it is
            smaller, and left as it is where it is not.
        image_token_id: Id of the tokenizer's `<image>`.
        bos_token_id: As the tokenizer has it.
        eos_token_id: As the tokenizer has it.
        pad_token_id: As the tokenizer has it.
        seed: Of the fresh weights; the same seed gives the same weights whatever was drawn before.
        language_model: Folder of the decoder where `recipe.language_model.from` is a name that
            `mm1.model.pretrained.resolve_language_model` has turned into one.

    Returns:
        The model in float32, in training mode.

    Raises:
        UserError: If sizes do not fit each other, or a pre-trained part can't be loaded.
    """
    source = language_model or recipe.language_model.from_
    if source in PACKAGED:
        raise ValueError(f"'{source}' is to be resolved to a folder first: resolve_language_model")
    tokens: dict[str, Any] = {
        "bos_token_id": bos_token_id,
        "eos_token_id": eos_token_id,
        "pad_token_id": pad_token_id,
    }
    text_config = (
        _scratch_decoder(recipe.language_model, vocab_size, tokens)
        if source is None
        else pretrained_config(str(source), "model.language_model.from")
    )
    decoder = None if source is None else _load_decoder(str(source), vocab_size, text_config)
    for name, value in tokens.items():
        setattr(text_config, name, value)
    if decoder is not None:
        text_config.vocab_size = vocabulary_size(decoder)
    vision_config, tower = build_tower(recipe.vision)
    config = MM1Config(
        vision_config=vision_config,
        text_config=text_config,
        connector=recipe.connector.kind,
        image_seq_length=recipe.connector.num_tokens,
        connector_depth=recipe.connector.depth,
        connector_hidden_size=recipe.connector.hidden_size,
        vision_feature_layer=recipe.vision.feature_layer,
        vision_final_norm=tower is None,
        image_token_id=image_token_id,
        moe_num_experts=recipe.language_model.num_experts,
        moe_every=recipe.language_model.sparse_every,
        moe_top_k=recipe.language_model.experts_per_token,
        moe_balance_loss=recipe.language_model.balance_loss,
        moe_z_loss=recipe.language_model.router_z_loss,
        tie_word_embeddings=text_config.tie_word_embeddings,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MM1ForConditionalGeneration(config)
    if tower is not None:
        model.model.vision_tower.load_state_dict(tower.state_dict())
    if decoder is not None:
        upcycle(model.model.language_model, _base(decoder), copy=recipe.language_model.upcycle)
        model.lm_head.load_state_dict(decoder.get_output_embeddings().state_dict())
    for name, value in tokens.items():
        setattr(model.generation_config, name, value)
    return model.train()


def _scratch_decoder(recipe: LanguageModelRecipe, vocab_size: int, tokens: dict[str, Any]) -> LlamaConfig:
    """Return the configuration of a Llama-type decoder: RoPE, RMSNorm, SwiGLU."""
    kv_heads = recipe.num_kv_heads or recipe.num_heads
    if recipe.hidden_size % recipe.num_heads:
        raise UserError(
            f"model.language_model: hidden_size {recipe.hidden_size} is not a multiple of num_heads {recipe.num_heads}"
        )
    if recipe.hidden_size // recipe.num_heads % 2:
        raise UserError(
            f"model.language_model: a head of {recipe.hidden_size // recipe.num_heads} channels can't be "
            "rotated (RoPE): make hidden_size / num_heads even"
        )
    if recipe.num_heads % kv_heads:
        raise UserError(
            f"model.language_model: num_heads {recipe.num_heads} is not a multiple of num_kv_heads {kv_heads}"
        )
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size or swiglu_size(recipe.hidden_size),
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=recipe.max_positions,
        tie_word_embeddings=recipe.tie_embeddings,
        **tokens,
    )


def swiglu_size(hidden_size: int) -> int:
    """Return 8/3 of the width, to the next multiple of 64: as many parameters as a plain FFN of 4x."""
    return -(-8 * hidden_size // (3 * 64)) * 64


def _base(decoder: PreTrainedModel) -> PreTrainedModel:
    base: Any = decoder.base_model
    return base


def vocabulary_size(decoder: PreTrainedModel) -> int:
    """Return how many rows the token embedding has."""
    weight: torch.Tensor = decoder.get_input_embeddings().weight  # type: ignore[assignment]
    return weight.shape[0]


def _load_decoder(source: str, vocab_size: int, config: PreTrainedConfig) -> PreTrainedModel:
    """Load a pre-trained decoder, its vocabulary grown to `vocab_size` where it is smaller."""
    try:
        decoder: PreTrainedModel = AutoModelForCausalLM.from_pretrained(source, config=config, dtype="float32")
    except (OSError, ValueError) as error:
        raise UserError(f"model.language_model.from: '{source}' can't be loaded ({first_line(error)})") from None
    if decoder.get_output_embeddings().bias is not None:
        raise UserError(f"model.language_model.from: '{source}' has a bias on its vocabulary, which MM1 has not")
    if vocabulary_size(decoder) < vocab_size:
        decoder.resize_token_embeddings(vocab_size, mean_resizing=False)
    return decoder
