"""From a recipe to a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel

from mm1.errors import UserError
from mm1.model.configuration import MM1Config
from mm1.model.fresh import build_fresh
from mm1.model.modeling import MM1ForConditionalGeneration
from mm1.model.positions import resize_images
from mm1.model.pretrained import pretrained_config
from mm1.model.saved import load_saved
from mm1.model.sparse import upcycle
from mm1.model.towers import load_tower, scratch_tower
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
) -> MM1ForConditionalGeneration:
    """Build the model a recipe describes: what is not pre-trained gets fresh weights.

    A recipe `from` a whole model gets that model, its position embeddings interpolated to another image size if the
    recipe has one.

    Args:
        recipe: The recipe's `model` section; every `from` is a folder (see `mm1.model.resolve.resolve_models`).
        vocab_size: Length of the tokenizer. A pre-trained decoder's vocabulary is grown to it where it is
            smaller, and left as it is where it is not.
        image_token_id: Id of the tokenizer's `<image>`.
        bos_token_id: As the tokenizer has it.
        eos_token_id: As the tokenizer has it.
        pad_token_id: As the tokenizer has it.
        seed: Of the fresh weights; the same seed gives a parameter of the same name and shape the same values, whatever
            else the model has.

    Returns:
        The model in float32, in training mode.

    Raises:
        UserError: If sizes do not fit each other, or a pre-trained part can't be loaded.
    """
    if recipe.from_ is not None:
        return load_whole(recipe.from_, recipe.image_size, vocab_size)
    source = recipe.language_model.from_
    tokens: dict[str, Any] = {
        "bos_token_id": bos_token_id,
        "eos_token_id": eos_token_id,
        "pad_token_id": pad_token_id,
    }
    decoder = None if source is None else load_decoder(source, vocab_size, seed)
    text_config = scratch_decoder(recipe.language_model, vocab_size) if decoder is None else decoder.config
    set_tokens(text_config, tokens)
    tower = None if recipe.vision.from_ is None else load_tower(recipe.vision.from_, recipe.vision.image_size)
    vision_config = scratch_tower(recipe.vision) if tower is None else tower.config
    config = compose(recipe, vision_config, text_config, image_token_id)
    model = build_fresh(lambda: MM1ForConditionalGeneration(config), seed)
    if tower is not None:
        model.model.vision_tower.load_state_dict(tower.state_dict())
    if decoder is not None:
        upcycle(model.model.language_model, decoder.base_model, copy=recipe.language_model.upcycle)
        model.lm_head.load_state_dict(decoder.get_output_embeddings().state_dict())
    set_tokens(model.generation_config, tokens)
    return model.train()


def set_tokens(config: PreTrainedConfig | GenerationConfig, tokens: dict[str, int | None]) -> None:
    """Write the tokenizer's special tokens into a configuration, by the names that it has for them."""
    for name, value in tokens.items():
        setattr(config, name, value)


def load_whole(source: str, image_size: int | None, vocab_size: int) -> MM1ForConditionalGeneration:
    """Load a whole model in float32, in training mode."""
    config = whole_config(source)
    model: MM1ForConditionalGeneration = load_saved(
        MM1ForConditionalGeneration, source, f"model.from: '{source}'", dtype=torch.float32
    )
    if vocab_size > config.text_config.vocab_size:
        raise UserError(
            f"model.from: '{source}' has {config.text_config.vocab_size:,} words and its tokenizer {vocab_size:,}: "
            "they don't belong together"
        )
    if image_size is not None and image_size != config.vision_config.image_size:
        resize_images(model, image_size)
    return model.train()


def whole_config(source: str) -> MM1Config:
    """Return the configuration of a whole model.

    Args:
        source: A model's folder.

    Raises:
        UserError: If there is no model, or one of another kind.
    """
    config = pretrained_config(source, "model.from")
    if not isinstance(config, MM1Config):
        raise UserError(
            f"model.from: '{source}' is a {config.model_type} and not a whole MM1: to put one together, give "
            "model.language_model.from and model.vision.from"
        )
    return config


def compose(
    recipe: ModelRecipe, vision_config: PreTrainedConfig, text_config: PreTrainedConfig, image_token_id: int
) -> MM1Config:
    """Return the configuration of a recipe's model around a tower's and a decoder's."""
    language_model = recipe.language_model
    return MM1Config(
        vision_config=vision_config,
        text_config=text_config,
        connector=recipe.connector.kind,
        image_seq_length=recipe.connector.num_tokens,
        connector_depth=recipe.connector.depth,
        connector_hidden_size=recipe.connector.hidden_size,
        connector_mlp_depth=recipe.connector.mlp_depth,
        connector_positions=recipe.connector.positions,
        connector_num_heads=recipe.connector.num_heads,
        vision_feature_layer=recipe.vision.feature_layer,
        vision_final_norm=recipe.vision.from_ is None,
        image_token_id=image_token_id,
        moe_num_experts=language_model.num_experts,
        moe_every=language_model.sparse_every,
        moe_top_k=language_model.experts_per_token,
        moe_balance_loss=language_model.balance_loss,
        moe_z_loss=language_model.router_z_loss,
    )


def scratch_decoder(recipe: LanguageModelRecipe, vocab_size: int) -> PreTrainedConfig:
    """Return the configuration of a decoder from scratch: RoPE, RMSNorm, SwiGLU.

    Raises:
        UserError: If the sizes do not fit each other.
    """
    key, kv_heads = "model.language_model", recipe.num_kv_heads or recipe.num_heads
    if recipe.hidden_size % recipe.num_heads:
        raise UserError(f"{key}: hidden_size {recipe.hidden_size} is not a multiple of num_heads {recipe.num_heads}")
    head_size = recipe.hidden_size // recipe.num_heads
    if head_size % 2:
        raise UserError(
            f"{key}: a head of {head_size} channels can't be rotated (RoPE): make hidden_size / num_heads even"
        )
    if recipe.num_heads % kv_heads:
        raise UserError(f"{key}: num_heads {recipe.num_heads} is not a multiple of num_kv_heads {kv_heads}")
    return AutoConfig.for_model(
        recipe.architecture,
        vocab_size=vocab_size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size or swiglu_size(recipe.hidden_size),
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=kv_heads,
        head_dim=head_size,
        max_position_embeddings=recipe.max_positions,
        tie_word_embeddings=recipe.tie_embeddings,
        # Some families' defaults are ids of their own tokenizers.
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def swiglu_size(hidden_size: int) -> int:
    """Return 8/3 of the width, to the next multiple of 64: as many parameters as a plain FFN of 4x."""
    return -(-8 * hidden_size // (3 * 64)) * 64


def load_decoder(source: str, vocab_size: int, seed: int) -> PreTrainedModel:
    """Load a pre-trained decoder in float32.

    Args:
        source: A folder: of a decoder, or of an MM1, whose decoder is taken.
        vocab_size: Where the decoder's vocabulary is smaller, it grows to this.
        seed: Of the new words' rows.

    Raises:
        UserError: If there is no decoder, or one that can't be used here.
    """
    key = "model.language_model.from"
    config = pretrained_config(source, key)
    decoder = _decoder_of_whole(source, config) if isinstance(config, MM1Config) else _decoder(source, config)
    head, embedding = decoder.get_output_embeddings(), decoder.get_input_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None or not isinstance(embedding, nn.Embedding):
        raise UserError(f"{key}: '{source}' has another vocabulary head than one matrix: take another decoder")
    for name in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise UserError(f"{key}: '{source}' changes its logits ({name}), which MM1 does not: take another decoder")
    if (known := len(embedding.weight)) < vocab_size:
        decoder.resize_token_embeddings(vocab_size, mean_resizing=False)
        std = config.get_text_config().initializer_range
        for module, is_head in ((decoder.get_input_embeddings(), False), (decoder.get_output_embeddings(), True)):
            if not (is_head and decoder.config.tie_word_embeddings):
                new = fresh_rows(vocab_size - known, embedding.weight.shape[1], std, seed, head=is_head)
                with torch.no_grad():
                    module.weight[known:] = new
    return decoder


def _decoder(source: str, config: PreTrainedConfig) -> PreTrainedModel:
    name = f"model.language_model.from: '{source}'"
    decoder: PreTrainedModel = load_saved(AutoModelForCausalLM, source, name, config=config, dtype=torch.float32)
    return decoder


def _decoder_of_whole(source: str, config: MM1Config) -> PreTrainedModel:
    """Return the decoder of an MM1 with its vocabulary head, as a model of its own family."""
    if config.moe_num_experts:
        raise UserError(
            f"model.language_model.from: '{source}' has a sparse decoder, which can't be taken out: take a dense one, "
            "or start from the whole model (model.from)"
        )
    name = f"model.language_model.from: '{source}'"
    whole = load_saved(MM1ForConditionalGeneration, source, name, dtype=torch.float32)
    decoder: PreTrainedModel = AutoModelForCausalLM.from_config(config.text_config, dtype=torch.float32)
    decoder.base_model.load_state_dict(whole.model.language_model.state_dict())
    decoder.get_output_embeddings().load_state_dict(whole.lm_head.state_dict())
    return decoder


def fresh_rows(count: int, width: int, std: float, seed: int, *, head: bool) -> torch.Tensor:
    """Draw the rows of words that a pre-trained decoder doesn't know.

    Args:
        count: How many.
        width: The decoder's.
        std: The decoder's `initializer_range`.
        seed: The recipe's.
        head: Whether they are rows of the vocabulary head, or else of the embedding.

    Returns:
        `(count, width)` in float32.
    """
    generator = torch.Generator().manual_seed(2 * seed + head)
    return torch.empty(count, width).normal_(std=std, generator=generator)
