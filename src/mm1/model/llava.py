"""To LLaVA's format and back, for models that are both: an MLP connector on the full patch grid.

to_llava(model).save_pretrained(folder)                                 # runs wherever LLaVA runs
model = from_llava(LlavaForConditionalGeneration.from_pretrained(folder))
"""

from __future__ import annotations

from typing import Any, Literal

from transformers import LlavaConfig, LlavaForConditionalGeneration, PreTrainedConfig

from mm1.errors import UserError
from mm1.model.configuration import MM1Config
from mm1.model.modeling import MM1ForConditionalGeneration
from mm1.model.pretrained import renamed
from mm1.model.vision import reads_inner_layer

_NAMES = {
    "model.connector.layers.0.": "model.multi_modal_projector.linear_1.",
    "model.connector.layers.1.": "model.multi_modal_projector.linear_2.",
}
# Towers with one CLS token, which LLaVA's strategy `default` drops, and towers with patches only (`full`).
_STRATEGIES: dict[str, Literal["default", "full"]] = {
    "clip_vision_model": "default",
    "dinov2": "default",
    "siglip_vision_model": "full",
    "aimv2_vision_model": "full",
}


def to_llava(model: MM1ForConditionalGeneration) -> LlavaForConditionalGeneration:
    """Return a LLaVA model with this model's weights and the same outputs.

    Raises:
        UserError: If the model is not a LLaVA in shape; says why.
    """
    config = model.config
    vision, text = config.vision_config, config.text_config
    strategy = _STRATEGIES.get(vision.model_type)
    inner = config.connector_hidden_size
    obstacles = {
        f"its connector is {config.connector}, not mlp": config.connector != "mlp",
        f"its connector has {config.connector_mlp_depth} layers, not 2": config.connector_mlp_depth != 2,
        f"its connector is {inner} wide inside, not {text.hidden_size}": inner not in (None, text.hidden_size),
        "its decoder is sparse": config.moe_num_experts > 0,
        f"LLaVA can't read a {vision.model_type}": strategy is None,
        "it normalises the patches and LLaVA does not": _normalises(config),
    }
    for obstacle, present in obstacles.items():
        if present:
            raise UserError(f"the model can't be exported to LLaVA: {obstacle}")
    llava = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision.to_dict(),
            text_config=text.to_dict(),
            image_token_index=config.image_token_id,
            image_seq_length=config.image_seq_length,
            projector_hidden_act=config.connector_activation,
            vision_feature_select_strategy=strategy or "default",
            vision_feature_layer=config.vision_feature_layer,
            tie_word_embeddings=config.tie_word_embeddings,
        )
    )
    llava.load_state_dict(renamed(model.state_dict(), _NAMES))
    return _like(llava, model)


def from_llava(llava: LlavaForConditionalGeneration) -> MM1ForConditionalGeneration:
    """Return an MM1 model with a LLaVA model's weights and the same outputs.

    Raises:
        UserError: If the LLaVA model does what MM1 does not; says what.
    """
    config: Any = llava.config
    vision, layer = config.vision_config, config.vision_feature_layer
    strategy = _STRATEGIES.get(vision.model_type)
    obstacles = {
        f"MM1 can't read a {vision.model_type}": strategy is None,
        f"it keeps all of the tower's tokens ({config.vision_feature_select_strategy})": (
            config.vision_feature_select_strategy != strategy
        ),
        f"it reads several layers of the tower ({layer})": not isinstance(layer, int),
        "its connector has no bias": not config.multimodal_projector_bias,
    }
    for obstacle, present in obstacles.items():
        if present:
            raise UserError(f"the LLaVA model can't be imported: {obstacle}")
    ours = MM1Config(
        vision_config=vision.to_dict(),
        text_config=config.text_config.to_dict(),
        connector="mlp",
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        connector_activation=config.projector_hidden_act,
        vision_feature_layer=layer,
        image_token_id=config.image_token_index,
        tie_word_embeddings=config.tie_word_embeddings,
    )
    if _normalises(ours):
        raise UserError("the LLaVA model can't be imported: it reads the last layer before its norm, MM1 after it")
    model = MM1ForConditionalGeneration(ours)
    model.load_state_dict(renamed(llava.state_dict(), {new: old for old, new in _NAMES.items()}))
    return _like(model, llava)


def _normalises(config: MM1Config) -> bool:
    """Whether the patches that the connector reads have passed the tower's final norm."""
    vision: PreTrainedConfig = config.vision_config
    return not reads_inner_layer(config) and (config.vision_final_norm or vision.model_type != "clip_vision_model")


def _like(target: Any, source: Any) -> Any:
    """Return the target with the source's special tokens, type and mode."""
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(target.generation_config, name, getattr(source.generation_config, name))
    return target.to(source.dtype).train(source.training)
