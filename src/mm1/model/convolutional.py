"""Convolutional vision towers: any backbone of `transformers` whose last output is a feature map, behind a ViT's face.

    pixels (N, 3, S, S) --backbone--> feature map (N, C, S / stride, S / stride) --> tokens (N, positions, C)

Connectors, budgets and image sizes read of a tower only its width, its grid and its outputs; with these, a
convolutional tower is one like any other. A position of the feature map is its patch, the stride its patch size; there
is no CLS token.
"""

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import BaseModelOutput

from mm1.errors import UserError
from mm1.model.pretrained import first_line

CONVOLUTIONAL = frozenset({"resnet", "regnet", "convnext", "convnextv2", "efficientnet", "timm_wrapper"})
"""Model types of the backbones that are tested here; `timm_wrapper` is what `transformers` makes of timm's folders."""

IMAGE_SIZE = 224
"""Side of the images in pixels until a recipe says another: convolutions take any, and most were trained with this."""


@strict
class ConvolutionalTowerConfig(PreTrainedConfig):
    """The configuration of a `ConvolutionalTower`, by the names that ViTs have for the same things.

    Attributes:
        backbone_config: The backbone's own, of one of the types in `CONVOLUTIONAL`.
        image_size: Side of the square images in pixels, a multiple of the stride.
        patch_size: The stride: pixels of the image along one side of a position of the last feature map.
        hidden_size: Channels of the last feature map.
        num_hidden_layers: 0: feature maps before the last have other grids, so none can be chosen.
    """

    model_type = "convolutional_tower"
    sub_configs_defaults = {  # noqa: RUF012  (the library declares a dict)
        "backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="resnet"),
    }

    # `PreTrainedConfig` once built; given as one, as its dict, or as None.
    backbone_config: Any = None
    image_size: int = IMAGE_SIZE
    patch_size: int = 32
    hidden_size: int = 2048
    num_hidden_layers: int = 0


class ConvolutionalTower(PreTrainedModel):
    """A convolutional backbone as a vision tower."""

    config: ConvolutionalTowerConfig
    config_class = ConvolutionalTowerConfig
    main_input_name = "pixel_values"
    input_modalities = ["image"]  # noqa: RUF012  (the library declares a list)
    _supports_flash_attn = _supports_sdpa = _supports_flex_attn = True

    def __init__(self, config: ConvolutionalTowerConfig) -> None:
        super().__init__(config)
        self.backbone = AutoModel.from_config(config.backbone_config, attn_implementation=None).eval()
        for name in ("_supports_flash_attn", "_supports_sdpa", "_supports_flex_attn"):
            setattr(self.backbone, name, True)  # it has no attention, so that every name of one will do
        self.post_init()

    def train(self, mode: bool = True) -> ConvolutionalTower:
        """Set the mode of training, in which the backbone computes as in use; its weights may learn all the same.

        In training, batch norm would normalise an image with the statistics of those that happen to lie in its
        micro-batch, often few and of one document, and move the statistics that the weights were trained with. So they
        stay, and nothing is dropped: an image's features depend on the image alone.
        """
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutput | tuple[torch.Tensor, ...]:
        """Compute the last feature map.

        Args:
            pixel_values: Normalised images `(N, 3, image_size, image_size)`.
            kwargs: `return_dict=False` asks for a tuple. There are no attentions, and no hidden states of this grid.

        Returns:
            The map's positions, row by row, as `last_hidden_state`: `(N, positions, hidden_size)`.
        """
        features = self.backbone(pixel_values, return_dict=True).last_hidden_state
        tokens = BaseModelOutput(last_hidden_state=features.flatten(2).transpose(1, 2))
        return tokens if kwargs.get("return_dict", True) else tokens.to_tuple()


def convolutional_config(backbone: PreTrainedConfig, source: str) -> ConvolutionalTowerConfig:
    """Return the configuration of a tower around a backbone; width and stride are those of what it computes.

    Args:
        backbone: The backbone's configuration.
        source: Where it comes from, for messages.

    Raises:
        UserError: If its last output is no square feature map, or a package for it is missing.
    """
    try:
        with torch.device("meta"):
            model = AutoModel.from_config(backbone).eval()
            features = model(torch.empty(1, 3, IMAGE_SIZE, IMAGE_SIZE), return_dict=True).last_hidden_state
    except ImportError as error:
        raise UserError(f"model.vision.from: '{source}' can't be loaded ({first_line(error)})") from None
    shape = tuple(features.shape)
    if len(shape) != 4 or shape[2] != shape[3] or IMAGE_SIZE % shape[2]:
        raise UserError(
            f"model.vision.from: '{source}' is no convolutional tower: of a square of {IMAGE_SIZE} pixels it makes "
            f"{' x '.join(map(str, shape[1:]))} values, and no square map of features: name another tower"
        )
    return ConvolutionalTowerConfig(backbone_config=backbone, patch_size=IMAGE_SIZE // shape[2], hidden_size=shape[1])


def load_convolutional(backbone: PreTrainedModel, source: str) -> ConvolutionalTower:
    """Return a tower with a backbone's weights.

    Args:
        backbone: The backbone.
        source: As of `convolutional_config`.

    Raises:
        UserError: As of `convolutional_config`.
    """
    tower = ConvolutionalTower(convolutional_config(backbone.config, source))
    tower.backbone.load_state_dict(backbone.state_dict())
    return tower


# Where models bring their own code, each brings these classes.
AutoConfig.register("convolutional_tower", ConvolutionalTowerConfig, exist_ok=True)
AutoModel.register(ConvolutionalTowerConfig, ConvolutionalTower, exist_ok=True)
