"""Tiny MM1 models and batches, in the form that the library's common tests ask for."""

from __future__ import annotations

from typing import Any

import torch

from mm1.model import MM1Config, MM1ForConditionalGeneration, MM1Model
from tests.peers.library import common, register

register("mm1", "MM1Model", "MM1ForConditionalGeneration")

VISION: dict[str, Any] = {
    "model_type": "clip_vision_model",
    "image_size": 16,
    "patch_size": 4,
    "num_channels": 3,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
}
TEXT: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    # Beyond the ids that the training test learns.
    "pad_token_id": 20,
    "bos_token_id": 21,
    "eos_token_id": 22,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "AveragePool": {},
    "Default": {"vision_final_norm": False},
    "InnerLayer": {"vision_feature_layer": -2},
    "CAbstractor": {"connector": "c_abstractor"},
    "AttentionPool": {"connector": "attention_pool"},
    "Mlp": {"connector": "mlp", "image_seq_length": 16},
    "Sparse": {"moe_num_experts": 4},
}
"""Name of each variant, and what its configuration has besides."""


class Tester:
    """Builds a configuration and a batch: per row one image's tokens, then words.

    Its attributes have the names that the common tests read.
    """

    base_model_class = MM1Model
    conditional_generation_class = MM1ForConditionalGeneration
    config_class = MM1Config

    def __init__(self, parent: Any, **changes: Any) -> None:
        self.parent = parent
        defaults = {"connector": "average_pool", "image_seq_length": 4, "vision_final_norm": True}
        self.changes: dict[str, Any] = {**defaults, **changes}
        self.vision_config, self.text_config = dict(VISION), dict(TEXT)
        self.batch_size, self.num_channels, self.image_size = 3, 3, 16
        self.num_image_tokens: int = self.changes["image_seq_length"]
        self.seq_length = self.encoder_seq_length = self.num_image_tokens + 7
        self.is_training = True
        self.hidden_size, self.num_hidden_layers = TEXT["hidden_size"], TEXT["num_hidden_layers"]
        self.num_attention_heads = TEXT["num_attention_heads"]
        self.vocab_size, self.pad_token_id = TEXT["vocab_size"], TEXT["pad_token_id"]
        self.image_token_id = 0
        self.tie_word_embeddings = False

    def get_config(self) -> MM1Config:
        """Return the variant's configuration."""
        return MM1Config(
            vision_config=dict(self.vision_config),
            text_config=dict(self.text_config),
            image_token_id=self.image_token_id,
            connector_hidden_size=24,
            connector_depth=1,
            **self.changes,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[MM1Config, dict[str, torch.Tensor]]:
        """Return the configuration and a batch of three rows."""
        tests = common("test_modeling_common")
        words = tests.ids_tensor([self.batch_size, self.seq_length], TEXT["vocab_size"] - 23) + 23
        words[:, : self.num_image_tokens] = self.image_token_id
        pixels = tests.floats_tensor([self.batch_size, 3, self.image_size, self.image_size])
        return self.get_config(), {
            "input_ids": words,
            "attention_mask": torch.ones_like(words),
            "pixel_values": pixels,
        }
