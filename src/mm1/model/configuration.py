"""The configuration of an MM1 model: a vision tower's, a decoder's and what lies between them."""

from __future__ import annotations

import math
import os
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from mm1.auto_map import CONFIG_AUTO_MAP, write_code
from mm1.errors import UserError
from mm1.nearest import did_you_mean

CONNECTORS: dict[str, str] = {
    "average_pool": "AveragePool",
    "attention_pool": "AttentionPool",
    "c_abstractor": "CAbstractor",
    "mlp": "MLP",
}
"""Name of each connector and its class."""


@strict
class MM1Config(PreTrainedConfig):
    """Everything that fixes the shape of an `MM1ForConditionalGeneration`.

    Attributes:
        vision_config: Configuration of any ViT of `transformers` (CLIP, SigLIP, DINOv2, AIMv2), or of a convolutional
            tower (`mm1.model.convolutional`).
        text_config: Configuration of any decoder of `transformers` (Llama, Qwen, OLMo).
        connector: Kind of connector, a name in `mm1.model.configuration.CONNECTORS`.
        image_seq_length: Tokens per image (paper sec. 3.2: 64 or 144).
        connector_depth: C-Abstractor: blocks before and after the pooling (Honeybee: 3).
        connector_hidden_size: C-Abstractor: width; attention pooling and MLP: inner width.
            None: 1024 for the C-Abstractor (Honeybee), the decoder's width for the others.
        connector_mlp_depth: C-Abstractor and MLP: linear layers at the end (Honeybee: 2; LLaVA-1.5: 2).
        connector_positions: C-Abstractor: learned position embedding on the patches (Honeybee: yes).
        connector_num_heads: Attention pooling: heads; None: one per 64 channels.
        connector_activation: MLP: activation between its linear layers (LLaVA: gelu).
        vision_feature_layer: Which of the tower's hidden states the connector reads: 0 is the embedding,
            -1 the last layer, -2 the one before (LLaVA).
        vision_final_norm: Whether CLIP's final layer norm is applied to the patches too. CLIP applies it to
            its CLS token only, so the patches of a pre-trained CLIP go without (as in LLaVA and Honeybee);
            a tower trained from scratch here goes with. SigLIP, DINOv2 and AIMv2 normalise their last
            hidden state themselves; for them, and for inner layers, this says nothing.
        image_token_id: Id of the token that stands where an image's features go.
        moe_num_experts: Experts of a sparse layer; 0: every layer is dense.
        moe_every: Every how many decoder layers one is sparse (paper sec. 3.4: 2 for 3B-MoE, 4 for 7B-MoE).
        moe_top_k: Experts per token (paper sec. 3.4: 2).
        moe_balance_loss: Weight of the load-balance loss (paper sec. 3.4: 0.01).
        moe_z_loss: Weight of the router z-loss (paper sec. 3.4: 0.001).
        moe_implementation: How the library computes experts, unless another way is asked for at loading
            (`experts_implementation`): grouped_mm, batched_mm or eager.
        tie_word_embeddings: Whether input and output embeddings are one tensor; follows `text_config`.
    """

    model_type = "mm1"
    # LLaVA's name, which parts of the library look for.
    attribute_map = {"image_token_index": "image_token_id"}  # noqa: RUF012  (the library declares a dict)
    # What the library's Trainer keeps out of predictions: whatever else is not the logits.
    keys_to_ignore_at_inference = [  # noqa: RUF012  (as above)
        "past_key_values",
        "image_hidden_states",
        "router_logits",
        "aux_loss",
        "router_balance",
        "router_z",
        "router_counts",
    ]
    sub_configs_defaults = {  # noqa: RUF012  (as above)
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="clip_vision_model"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    # `PreTrainedConfig` once built; given as one, as its dict, or as None.
    vision_config: Any = None
    text_config: Any = None
    connector: str = "c_abstractor"
    image_seq_length: int = 144
    connector_depth: int = 3
    connector_hidden_size: int | None = None
    connector_mlp_depth: int = 2
    connector_positions: bool = True
    connector_num_heads: int | None = None
    connector_activation: str = "gelu"
    vision_feature_layer: int = -1
    vision_final_norm: bool = False
    image_token_id: int = 0
    moe_num_experts: int = 0
    moe_every: int = 2
    moe_top_k: int = 2
    moe_balance_loss: float = 0.01
    moe_z_loss: float = 0.001
    moe_implementation: str = "grouped_mm"
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = self.tie_word_embeddings or bool(self.text_config.tie_word_embeddings)
        if self.connector not in CONNECTORS:
            raise UserError(
                f"connector '{self.connector}' is unknown: {did_you_mean(self.connector, sorted(CONNECTORS))}"
            )
        self.auto_map = CONFIG_AUTO_MAP.copy()
        self.name_experts()

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write `config.json` to a folder, and the code that the Auto classes look for there (`mm1.auto_map`)."""
        if not os.path.isfile(save_directory):  # the library says what is wrong with it
            write_code(save_directory)
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Do nothing: folders have the code anyway, and the library would write a single file of it."""

    def name_experts(self) -> None:
        """Give `text_config` the names by which the library and TRL know a decoder with experts."""
        if self.moe_num_experts:
            self.text_config.num_experts = self.moe_num_experts
            self.text_config.num_experts_per_tok = self.moe_top_k
            self.text_config.router_aux_loss_coef = self.moe_balance_loss
            self.text_config.output_router_logits = self.output_router_logits

    @property
    def output_router_logits(self) -> bool:
        """Whether outputs hold the routers' logits, unless a call says otherwise; kept in `text_config`."""
        return bool(getattr(self.text_config, "output_router_logits", False))

    @output_router_logits.setter
    def output_router_logits(self, value: bool) -> None:
        self.text_config.output_router_logits = value

    def validate_feature_layer(self) -> None:
        """Check that the feature layer exists; `strict` calls whatever begins with `validate_`.

        Raises:
            UserError: If the tower has no such layer.
        """
        layers = self.vision_config.num_hidden_layers
        if not layers and self.vision_feature_layer != -1:
            raise UserError(
                f"vision_feature_layer {self.vision_feature_layer} is out of range: a convolutional tower gives its "
                "last feature map: leave it at -1"
            )
        if not -layers - 1 <= self.vision_feature_layer <= layers:
            raise UserError(
                f"vision_feature_layer {self.vision_feature_layer} is out of range: the vision tower has "
                f"{layers} layers, so give -{layers + 1} to {layers}"
            )

    @property
    def patch_grid(self) -> int:
        """Patches along one side of an image."""
        image, patch = self.vision_config.image_size, self.vision_config.patch_size
        if not isinstance(image, int) or not isinstance(patch, int):
            raise UserError(f"the vision tower's image_size {image} and patch_size {patch} must be squares")
        return image // patch

    @property
    def token_grid(self) -> int:
        """Tokens along one side of an image, for connectors that keep the image's plane.

        Raises:
            UserError: If the number of tokens is not a square.
        """
        side = math.isqrt(self.image_seq_length)
        if side**2 != self.image_seq_length:
            raise UserError(
                f"{self.image_seq_length} tokens per image do not form a square: "
                f"give {side**2} or {(side + 1) ** 2}, or take the connector attention_pool"
            )
        return side
