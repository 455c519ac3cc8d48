"""Vision towers: loaded whole from what others saved, and read at the layer that is asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from transformers import (
    Aimv2Config,
    Aimv2Model,
    Aimv2VisionConfig,
    Aimv2VisionModel,
    AutoConfig,
    AutoModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PreTrainedConfig,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration, build_model
from mm1.model.positions import resize_images, resize_table, resize_tower
from mm1.model.towers import load_tower, pixel_statistics
from mm1.model.vision import patch_features
from mm1.recipe import ModelRecipe

from .builders import image_tokens, pack, sample, tiny_config, tiny_model

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
TEXT: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
TOWERS: dict[str, tuple[type[PreTrainedModel], type[PreTrainedConfig], dict[str, Any]]] = {
    "clip": (CLIPVisionModel, CLIPVisionConfig, {"intermediate_size": 32}),
    "siglip": (SiglipVisionModel, SiglipVisionConfig, {"intermediate_size": 32}),
    "dinov2": (Dinov2Model, Dinov2Config, {}),
    "dinov2 with registers": (Dinov2WithRegistersModel, Dinov2WithRegistersConfig, {"num_register_tokens": 3}),
    "aimv2": (Aimv2VisionModel, Aimv2VisionConfig, {"intermediate_size": 32}),
    "aimv2 native": (Aimv2VisionModel, Aimv2VisionConfig, {"intermediate_size": 32, "is_native": True}),
}
# How many special tokens each puts before the patches.
SPECIAL = {"clip": 1, "siglip": 0, "dinov2": 1, "dinov2 with registers": 4, "aimv2": 0, "aimv2 native": 0}

POSITIONS = "embeddings.position_embedding.weight"


def random_tower(name: str):
    torch.manual_seed(1)
    model, config, extra = TOWERS[name]
    tower = model(config(**SIZES, **extra)).eval()
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.3)
    return tower


@pytest.mark.parametrize("name", TOWERS)
def test_patches_of_every_family_and_layer(name, tmp_path):
    tower = random_tower(name)
    tower.save_pretrained(tmp_path)
    loaded = load_tower(str(tmp_path)).eval()
    assert not any(n.startswith("head.") for n in loaded.state_dict())
    pixels = torch.randn(2, 3, 16, 16)
    wanted = tower(pixels, output_hidden_states=True)
    for layer in (-1, -2, 1):
        config = tiny_config(vision_config=loaded.config, vision_feature_layer=layer, vision_final_norm=False)
        features = patch_features(loaded, config, pixels)
        all_tokens = wanted.last_hidden_state if layer == -1 else wanted.hidden_states[layer]
        assert all_tokens.shape[1] == 16 + SPECIAL[name]
        torch.testing.assert_close(features, all_tokens[:, SPECIAL[name] :])


def test_final_norm_is_clips_own():
    tower = random_tower("clip")
    config = tiny_config(vision_config=tower.config, vision_final_norm=True)
    pixels = torch.randn(2, 3, 16, 16)
    wanted = tower.post_layernorm(tower(pixels).last_hidden_state)[:, 1:]
    torch.testing.assert_close(patch_features(tower, config, pixels), wanted)


@pytest.mark.parametrize(
    ("model", "config", "vision"),
    [
        (CLIPModel, CLIPConfig, "clip"),
        (SiglipModel, SiglipConfig, "siglip"),
        (Aimv2Model, Aimv2Config, "aimv2"),
    ],
)
def test_the_vision_half_of_a_two_tower_model(model, config, vision, tmp_path):
    torch.manual_seed(0)
    sizes = SIZES | TOWERS[vision][2]
    whole = model(config(text_config=TEXT, vision_config=sizes)).eval()
    whole.save_pretrained(tmp_path)
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        wanted = whole.vision_model(pixels).last_hidden_state
        torch.testing.assert_close(load_tower(str(tmp_path)).eval()(pixels).last_hidden_state, wanted)


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("size", [8, 16, 28])
def test_resized_is_what_the_towers_own_library_interpolates(name, size):
    tower, resized = random_tower(name), random_tower(name)
    resize_tower(resized, size)
    pixels = torch.randn(2, 3, size, size)
    if name in ("clip", "siglip"):
        wanted = tower(pixels, interpolate_pos_encoding=True).last_hidden_state
    elif name == "aimv2":  # its own library does not interpolate
        wanted = None
    else:
        wanted = tower(pixels).last_hidden_state
    features = resized(pixels).last_hidden_state
    assert features.shape == (2, (size // 4) ** 2 + SPECIAL[name], 16)
    if wanted is not None:
        torch.testing.assert_close(features, wanted)


@pytest.mark.parametrize("name", TOWERS)
def test_resizing_to_the_same_grid_changes_nothing(name):
    tower, same = random_tower(name), random_tower(name)
    resize_tower(same, 16)
    tensors = tower.state_dict()
    assert all(torch.equal(value, tensors[key]) for key, value in same.state_dict().items())
    pixels = torch.randn(1, 3, 16, 16)
    assert torch.equal(tower(pixels).last_hidden_state, same(pixels).last_hidden_state)


def test_a_smooth_table_stays_what_it_is():
    """Positions that grow over the plane still do at twice the resolution, within bicubic's ripple."""
    line = torch.arange(8.0)
    table = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).flatten(0, 1)
    finer = resize_table(table, 16).view(16, 16, 2)[4:-4, 4:-4]
    wanted = (torch.arange(16.0) + 0.5) / 2 - 0.5
    torch.testing.assert_close(finer[:, 0, 0], wanted[4:-4], atol=0.05, rtol=0)
    torch.testing.assert_close(finer[0, :, 1], wanted[4:-4], atol=0.05, rtol=0)


@pytest.mark.parametrize("connector", ["average_pool", "attention_pool", "c_abstractor", "mlp"])
def test_a_whole_model_takes_another_size_and_is_saved_with_it(connector, tmp_path):
    model = tiny_model(connector=connector, image_seq_length=16 if connector == "mlp" else 4)
    pixels = torch.randn(2, 3, 16, 16)
    before = image_tokens(model, pixels)
    resize_images(model, 16)
    assert torch.equal(image_tokens(model, pixels), before)
    resize_images(model, 24)
    tokens = 36 if connector == "mlp" else 4
    larger = image_tokens(model, torch.randn(2, 3, 24, 24))
    assert larger.shape == (2, tokens, 32)
    batch = pack([[sample("i2", 1, tokens, 24)]])
    logits = model(**batch).logits
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(MM1ForConditionalGeneration.from_pretrained(tmp_path)(**batch).logits, logits)


class OpenClipBlock(nn.Module):
    """A residual block as open_clip lays its tensors out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 2 * width), "c_proj": nn.Linear(2 * width, width)})

    def forward(self, x, quick):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        y = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](y * (1.702 * y).sigmoid() if quick else F.gelu(y))


class OpenClipTower(nn.Module):
    """A vision tower of open_clip's layout, on an 18-pixel image with patches of 6."""

    def __init__(self, width: int = 20, heads: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 6, 6, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(10, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        blocks = nn.ModuleList(OpenClipBlock(width, heads) for _ in range(2))
        self.transformer = nn.ModuleDict({"resblocks": blocks})
        self.proj = nn.Parameter(torch.randn(width, 12))

    def forward(self, pixels, quick):
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in self.transformer["resblocks"].children():
            x = block(x, quick)
        return x


def open_clip_checkpoint(folder, quick=True, **changes):
    torch.manual_seed(2)
    tower = OpenClipTower().eval()
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.3)
    tensors = {f"visual.{n}": t for n, t in tower.state_dict().items()} | {"logit_scale": torch.tensor(1.0)}
    save_file(tensors, folder / "open_clip_model.safetensors")
    vision = {"image_size": 18, "layers": 2, "width": 20, "head_width": 10, "patch_size": 6, "mlp_ratio": 2.0}
    settings = {"embed_dim": 12, "quick_gelu": quick, "vision_cfg": vision | changes, "text_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings}))
    return tower


@pytest.mark.parametrize("quick", [False, True])
def test_an_open_clip_tower_is_converted(tmp_path, quick):
    tower = open_clip_checkpoint(tmp_path, quick)
    pixels = torch.randn(2, 3, 18, 18)
    with torch.no_grad():
        torch.testing.assert_close(load_tower(str(tmp_path)).eval()(pixels).last_hidden_state, tower(pixels, quick))


def test_open_clip_towers_are_shrunk_with_antialiasing_as_open_clip_does(tmp_path):
    open_clip_checkpoint(tmp_path)
    table = load_tower(str(tmp_path)).get_parameter(POSITIONS)
    shrunk = load_tower(str(tmp_path), 12).get_parameter(POSITIONS)
    torch.testing.assert_close(shrunk[1:], resize_table(table[1:], 2, antialias=True))
    assert not torch.allclose(shrunk[1:], resize_table(table[1:], 2, antialias=False))


def test_a_model_without_a_separate_tower_is_refused(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is a mm1, whose vision tower can't be taken out"):
        load_tower(str(tmp_path))


def test_a_recipe_takes_an_open_clip_tower_at_another_size(tmp_path):
    open_clip_checkpoint(tmp_path)
    recipe = ModelRecipe.model_validate(
        {
            "vision": {"from": str(tmp_path), "image_size": 30},
            "connector": {"kind": "average_pool", "num_tokens": 4},
            "language_model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2},
        }
    )
    model = build_model(recipe, vocab_size=32, image_token_id=3)
    assert model.config.patch_grid == 5
    assert not model.config.vision_final_norm
    assert image_tokens(model, torch.randn(1, 3, 30, 30)).shape == (1, 4, 16)
    table = load_tower(str(tmp_path)).get_parameter(POSITIONS)
    ours = model.model.vision_tower.get_parameter(POSITIONS)
    assert torch.equal(ours[0], table[0])
    torch.testing.assert_close(ours[1:], resize_table(table[1:], 5, antialias=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 3}, r"16 tensors do not fit.*encoder.layers.2"),
        ({"timm_model_name": "vit"}, r"no plain ViT.*timm"),
        ({"patch_size": None}, "no plain ViT"),
    ],
)
def test_an_open_clip_checkpoint_of_another_layout_is_refused(tmp_path, changes, message):
    open_clip_checkpoint(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        load_tower(str(tmp_path))


def test_pixel_statistics_are_the_checkpoints_or_the_familys(tmp_path):
    clip = pixel_statistics(None)
    assert clip[0][0] == pytest.approx(0.4815, abs=1e-4)
    for name, mean in (("siglip", 0.5), ("dinov2", 0.485), ("clip", clip[0][0]), ("aimv2", clip[0][0])):
        folder = tmp_path / name
        random_tower(name).save_pretrained(folder)
        assert pixel_statistics(str(folder))[0][0] == pytest.approx(mean)
        (folder / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}')
        assert pixel_statistics(str(folder)) == ([0.1, 0.2, 0.3], [1, 2, 3])
    open_clip_checkpoint(tmp_path)
    assert pixel_statistics(str(tmp_path)) == clip
    file = tmp_path / "open_clip_config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"preprocess_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1]}})
    )
    assert pixel_statistics(str(tmp_path)) == ([0, 0, 0], [1, 1, 1])
    file.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        pixel_statistics(str(tmp_path))


def test_what_is_no_tower_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"model.vision.from: '/nowhere' is no model"):
        load_tower("/nowhere")
    AutoModel.from_config(AutoConfig.for_model("bert", vocab_size=9, **TEXT)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"is a bert: take one of aimv2"):
        load_tower(str(tmp_path))
    with pytest.raises(UserError, match="30 is not a multiple of the patch size 4"):
        resize_tower(random_tower("clip"), 30)
