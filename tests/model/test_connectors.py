"""Connectors: shapes for any grids, what each computes, what they refuse."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPVisionConfig, LlamaConfig

from mm1.errors import UserError
from mm1.model.configuration import CONNECTORS, MM1Config
from mm1.model.connectors import build_connector
from mm1.model.connectors.attention_pool import AttentionPool
from mm1.model.connectors.average_pool import AveragePool
from mm1.model.connectors.c_abstractor import Bottleneck, CAbstractor
from mm1.model.connectors.mlp import MLP
from mm1.model.modeling import MM1Model

from .builders import image_tokens, tiny_config, tiny_model

VISION, HIDDEN = 16, 32


def grids(patches: int, tokens: int, **changes):
    vision = CLIPVisionConfig(
        image_size=patches * 2, patch_size=2, hidden_size=VISION, num_hidden_layers=1, num_attention_heads=1
    )
    return tiny_config(vision_config=vision, image_seq_length=tokens**2, **changes)


@settings(max_examples=25)
@given(st.sampled_from(["average_pool", "attention_pool", "c_abstractor"]), st.integers(1, 30), st.integers(1, 13))
def test_any_patch_grid_becomes_any_square_of_tokens(kind, patches, tokens):
    connector = build_connector(grids(patches, tokens, connector=kind, connector_hidden_size=8))
    assert connector(torch.randn(2, patches**2, VISION)).shape == (2, tokens**2, HIDDEN)


def features(pictures: int, grid: int, regions: int, width: int) -> torch.Tensor:
    """Patches `(N, grid^2, width)` of variance 1, a third each from the picture, its region and the patch itself."""
    parts = [torch.randn(pictures, width, side, side) for side in (1, regions, grid)]
    planes = torch.stack([F.interpolate(part, size=(grid, grid)) for part in parts])
    return planes.sum(0).flatten(2).transpose(1, 2) / 3**0.5


def start_of(tokens: torch.Tensor) -> tuple[float, float, float]:
    """The root mean square of tokens, and their standard deviations over pictures and over a picture's tokens."""
    spreads = [tokens.std(dimension).square().mean().sqrt().item() for dimension in (0, 1)]
    return tokens.square().mean().sqrt().item(), spreads[0], spreads[1]


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize(("grid", "side", "width", "hidden"), [(8, 4, 96, 128), (16, 4, 64, 256), (12, 12, 256, 64)])
@pytest.mark.parametrize("kind", sorted(CONNECTORS))
def test_tokens_start_with_the_scale_and_the_spread_of_the_features(kind, grid, side, width, hidden, depth):
    torch.manual_seed(0)
    vision = CLIPVisionConfig(image_size=2 * grid, patch_size=2, hidden_size=width, num_attention_heads=1)
    text = LlamaConfig(vocab_size=8, hidden_size=hidden, num_attention_heads=1)
    tokens = grid if kind == "mlp" else side
    model = MM1Model(
        MM1Config(
            vision_config=vision,
            text_config=text,
            connector=kind,
            image_seq_length=tokens**2,
            image_token_id=3,
            connector_hidden_size=96 if kind == "c_abstractor" else None,
            connector_depth=depth,
            connector_mlp_depth=depth,
        )
    )
    with torch.no_grad():
        scale, over_pictures, over_tokens = start_of(model.connector(features(32, grid, side, width)))
    assert 0.5 < scale < 1.6
    assert over_pictures > 0.4 * scale
    assert over_tokens > 0.25 * scale


@pytest.mark.parametrize("kind", sorted(CONNECTORS))
def test_every_weight_is_initialised_and_learns(kind):
    model = tiny_model(connector=kind, image_seq_length=16 if kind == "mlp" else 4)
    for name, weight in model.model.connector.named_parameters():
        assert weight.isfinite().all(), name
        assert (weight == 0).all() if name.endswith("bias") else weight.any(), name
    image_tokens(model, torch.randn(2, 3, 16, 16)).square().sum().backward()
    gradients = {n: 0.0 if w.grad is None else w.grad.abs().max() for n, w in model.model.connector.named_parameters()}
    # An attention's key bias shifts all scores alike and changes nothing: its gradient is rounding alone, whose size
    # follows that of the others.
    still = {name for name, gradient in gradients.items() if gradient <= 1e-4 * max(gradients.values())}
    assert still == ({"key.bias"} if kind == "attention_pool" else set())


def test_average_pool_is_the_mean_of_blocks_where_grids_divide():
    connector = AveragePool(grids(6, 3))
    patches = torch.randn(2, 36, VISION)
    blocks = patches.view(2, 3, 2, 3, 2, VISION).mean((2, 4)).flatten(1, 2)
    torch.testing.assert_close(connector(patches), connector.project(blocks))


@pytest.mark.parametrize("kind", ["average_pool", "c_abstractor"])
def test_the_plane_is_kept(kind):
    """A change in the picture's first corner changes the first token most and not the last (average)."""
    torch.manual_seed(0)
    connector = build_connector(grids(12, 4, connector=kind, connector_hidden_size=8, connector_depth=1))
    for parameter in connector.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    patches = torch.randn(1, 144, VISION)
    changed = patches.clone()
    changed[0, 0] += 10
    difference = (connector(changed) - connector(patches)).abs().sum(-1)[0]
    assert difference.argmax() == 0
    assert (difference[-1] == 0) == (kind == "average_pool")


def test_c_abstractor_has_honeybees_size():
    """Parameters counted by hand from Honeybee's published configuration, ViT-L/336 to 144 tokens."""
    vision = CLIPVisionConfig(image_size=336, patch_size=14, hidden_size=1024, num_attention_heads=16)
    config = tiny_config(vision_config=vision, connector_depth=3, connector_hidden_size=1024, image_seq_length=144)
    width, hidden, squeezed = 1024, HIDDEN, 256
    norms = 3 * 2 * width
    excitation = width * squeezed + squeezed + squeezed * width + width
    block = 2 * width * width + 9 * width + norms + excitation
    positions = 24 * 24 * 1024
    mlp = width * hidden + hidden + hidden * hidden + hidden
    with torch.device("meta"):
        connector = CAbstractor(config)
    assert sum(p.numel() for p in connector.parameters()) == 6 * block + positions + mlp


def test_bottleneck_is_regnets():
    """Against the same block written out with functional calls."""
    torch.manual_seed(0)
    block = Bottleneck(6, 8)
    plane = torch.randn(2, 6, 5, 5)

    def norm(x, module):
        return F.layer_norm(x.movedim(1, -1), (8,), module.weight, module.bias, 1e-5).movedim(-1, 1)

    shortcut, shortcut_norm = block.shortcut.children()
    hidden = F.silu(norm(F.conv2d(plane, block.conv1.weight), block.norm1))
    hidden = F.silu(norm(F.conv2d(hidden, block.conv2.weight, padding=1, groups=8), block.norm2))
    gate = F.silu(block.excite.reduce(F.adaptive_avg_pool2d(hidden, 1)))
    hidden = norm(F.conv2d(hidden * block.excite.expand(gate).sigmoid(), block.conv3.weight), block.norm3)
    wanted = F.silu(hidden + norm(F.conv2d(plane, shortcut.get_parameter("weight")), shortcut_norm))
    torch.testing.assert_close(block(plane), wanted)
    assert block.excite.reduce.out_channels == round(6 / 4)


def test_attention_pool_is_multi_head_attention():
    torch.manual_seed(0)
    connector = build_connector(grids(4, 3, connector="attention_pool", connector_num_heads=4))
    assert isinstance(connector, AttentionPool)
    torch.nn.init.normal_(connector.queries)
    inner = connector.queries.shape[1]
    reference = torch.nn.MultiheadAttention(inner, 4, kdim=VISION, vdim=VISION, batch_first=True)
    with torch.no_grad():
        reference.q_proj_weight.copy_(connector.query.weight)
        reference.k_proj_weight.copy_(connector.key.weight)
        reference.v_proj_weight.copy_(connector.value.weight)
        biases = (connector.query.bias, connector.key.bias, connector.value.bias)
        reference.in_proj_bias.copy_(torch.cat(biases))
        reference.out_proj.load_state_dict({"weight": torch.eye(inner), "bias": torch.zeros(inner)})
    patches = torch.randn(2, 16, VISION)
    memory = connector.norm(patches)
    pooled, _ = reference(connector.queries.expand(2, -1, -1), memory, memory)
    torch.testing.assert_close(connector(patches), connector.project(pooled))


def test_attention_pool_takes_any_number_of_tokens():
    connector = build_connector(tiny_config(connector="attention_pool", image_seq_length=7))
    assert connector(torch.randn(1, 16, VISION)).shape == (1, 7, HIDDEN)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_mlp_is_its_layers(depth):
    connector = build_connector(tiny_config(connector="mlp", image_seq_length=16, connector_mlp_depth=depth))
    assert isinstance(connector, MLP)
    patches = torch.randn(2, 16, VISION)
    hidden = patches
    for n, layer in enumerate(connector.layers):
        hidden = F.linear(F.gelu(hidden) if n else hidden, layer.get_parameter("weight"), layer.get_parameter("bias"))
    assert len(connector.layers) == depth
    torch.testing.assert_close(connector(patches), hidden)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"connector": "resampler"}, "'resampler' is unknown.*average_pool"),
        ({"connector": "average_pool", "image_seq_length": 10}, "10 tokens.*9 or 16"),
        ({"connector": "mlp", "image_seq_length": 4}, "16 tokens per image and not 4"),
        ({"connector": "attention_pool", "connector_num_heads": 5}, "24.*5 heads"),
        ({"vision_feature_layer": -4}, "-4 is out of range.*2 layers.*-3 to 2"),
    ],
)
def test_what_can_not_be_is_one_sentence(changes, message):
    with pytest.raises(UserError, match=message):
        tiny_model(**changes)


def test_token_grid_is_the_root():
    assert [tiny_config(image_seq_length=n).token_grid for n in (1, 64, 144)] == [1, 8, 12]


def test_a_patch_grid_that_is_no_square_is_one_sentence():
    vision = CLIPVisionConfig(image_size=[16, 32], patch_size=4, hidden_size=16, num_attention_heads=2)
    with pytest.raises(UserError, match=r"image_size \[16, 32\].*must be squares"):
        build_connector(tiny_config(vision_config=vision))
