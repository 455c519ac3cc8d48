"""What MM1's models share: configuration, initialisation, what they support."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.models.mixtral.modeling_mixtral import MixtralTopKRouter
from transformers.utils.output_capturing import OutputRecorder

from mm1.model.configuration import CONNECTORS, MM1Config
from mm1.model.connectors.attention_pool import AttentionPool
from mm1.model.connectors.c_abstractor import POSITION_STD, CAbstractor, LayerNorm2d
from mm1.model.connectors.layers import Activated
from mm1.model.sparse import SparseBlock, checkpointed, draw_experts, experts_implementation


class MM1PreTrainedModel(PreTrainedModel):
    """What the models below share: configuration, initialisation, what they support."""

    config: MM1Config
    config_class = MM1Config
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]  # noqa: RUF012  (the library declares a list)
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012  (as above)
    _no_split_modules = list(CONNECTORS.values())  # noqa: RUF012  (tower and decoder add theirs)
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    # What can be asked for. The sparse blocks record it themselves: the library's hooks stop at the decoder.
    _can_record_outputs = {"router_logits": OutputRecorder(MixtralTopKRouter, index=0)}  # noqa: RUF012  (as above)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Do nothing: the configuration writes the code into folders (`mm1.auto_map`)."""

    def get_correct_experts_implementation(self, requested_experts: str | None) -> str:
        """Check how experts shall be computed; default: as the configuration says."""
        if self.config.moe_num_experts:
            requested_experts = requested_experts or experts_implementation(self.config)
        implementation: str = super().get_correct_experts_implementation(requested_experts)
        return implementation

    def _grouped_mm_can_dispatch(self) -> bool:
        """The library asks a class's source code for it; here the configuration says whether there are experts."""
        return bool(self.config.moe_num_experts or super()._grouped_mm_can_dispatch())

    def set_experts_implementation(self, experts_implementation: str | dict[str, str]) -> None:
        """Set how experts are computed."""
        if not self.config.moe_num_experts:
            super().set_experts_implementation(experts_implementation)
            return
        wanted: Any = experts_implementation
        if isinstance(wanted, dict):
            wanted = wanted.get("", self.config._experts_implementation)
        self.config._experts_implementation_internal = self.get_correct_experts_implementation(wanted)

    def _set_gradient_checkpointing(self, *args: Any, **kwargs: Any) -> None:
        """Set what computes layers again, as the library does; a sparse layer's returns its routing too."""
        super()._set_gradient_checkpointing(*args, **kwargs)
        for module in self.modules():
            layer: Any = module
            if isinstance(block := getattr(layer, "mlp", None), SparseBlock):
                layer._gradient_checkpointing_func = checkpointed(layer._gradient_checkpointing_func, block)

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        """Draw a module's weights unless they are loaded. In code of others the library passes over containers."""
        super()._initialize_weights(module)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Draw a module's weights: of the connector, the experts and the head; tower and decoder have their own rules.

        The connector's layers are normal with a variance of 1 / inputs, and of 2 / inputs after an activation (He et
        al., arXiv 1502.01852, sec. 2.2). So its tokens begin with the scale and the spread of the tower's features.
        Drawn like the decoder's weights, the tokens of an attention pooling would all begin alike.
        """
        if isinstance(module, LayerNorm2d):  # the library goes by the class's name, which ends in "2d"
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | nn.Conv2d) and "connector" in self._modules:  # other models have the head
            init.kaiming_normal_(module.weight, nonlinearity="relu" if isinstance(module, Activated) else "linear")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, AttentionPool):
            init.normal_(module.queries, std=module.query_std)
        elif isinstance(module, CAbstractor) and module.positions is not None:
            init.normal_(module.positions, std=POSITION_STD)
        else:
            super()._init_weights(module)
        if (decoder := module._modules.get("language_model")) is not None:  # its own rule knows of no experts
            draw_experts(decoder, self.config.get_text_config().initializer_range)
