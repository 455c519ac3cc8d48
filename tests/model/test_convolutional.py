"""Convolutional towers: what each family computes, what stays as it was trained, and the same model after saving."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    ConvNextConfig,
    ConvNextModel,
    ConvNextV2Config,
    ConvNextV2Model,
    EfficientNetConfig,
    EfficientNetModel,
    PreTrainedConfig,
    PreTrainedModel,
    RegNetConfig,
    RegNetModel,
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
    TimmWrapperConfig,
    TimmWrapperModel,
)

from mm1.errors import UserError
from mm1.export.standalone import write_standalone_code
from mm1.model import MM1ForConditionalGeneration, build_model
from mm1.model.convolutional import CONVOLUTIONAL, ConvolutionalTower
from mm1.model.parts import blocks_of
from mm1.model.positions import resize_images
from mm1.model.shape import recipe_config
from mm1.model.sharded_start import Share, start_sharded
from mm1.model.sizes import parameters_by_part, unit_flops
from mm1.model.towers import load_tower, pixel_statistics, tower_config
from mm1.recipe import ModelRecipe

from .builders import image_tokens, pack, sample
from .fresh_python import fresh_python

STAGES: dict[str, Any] = {"hidden_sizes": [8, 8, 16, 24], "depths": [1, 1, 2, 1]}
FAMILIES: dict[str, tuple[type[PreTrainedModel], type[PreTrainedConfig], dict[str, Any]]] = {
    "resnet": (ResNetModel, ResNetConfig, STAGES | {"embedding_size": 8}),
    "regnet": (RegNetModel, RegNetConfig, STAGES | {"embedding_size": 8, "groups_width": 8}),
    "convnext": (ConvNextModel, ConvNextConfig, STAGES | {"drop_path_rate": 0.5}),
    "convnextv2": (ConvNextV2Model, ConvNextV2Config, STAGES),
    "efficientnet": (
        EfficientNetModel,
        EfficientNetConfig,
        {"width_coefficient": 0.1, "depth_coefficient": 0.5, "hidden_dim": 128, "drop_connect_rate": 0.5},
    ),
}


STATISTICS = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}


def random_backbone(family: str) -> PreTrainedModel:
    """Return a backbone with random weights and statistics."""
    torch.manual_seed(1)
    model, config, sizes = FAMILIES[family]
    backbone = model(config(**sizes)).eval()
    for name, tensor in backbone.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.ndim:
            nn.init.normal_(tensor, std=0.3)
    return backbone


@pytest.fixture
def resnet(tmp_path) -> str:
    random_backbone("resnet").save_pretrained(tmp_path / "resnet")
    return str(tmp_path / "resnet")


ALONE = "import sys; sys.modules['mm1'] = None  # as if it were not installed"
PROGRAM = """
import sys, torch
from transformers import AutoModelForImageTextToText
if "mm1" not in sys.modules:
    import mm1
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1], trust_remote_code=sys.modules["mm1"] is None)
pixels = torch.load(sys.argv[2])
print(type(model.model.vision_tower).__name__)
print(model.get_image_features(pixels).pooler_output.double().sum().item())
ids = torch.tensor([[3] * 4 + [7]])
print(model.generate(input_ids=ids, pixel_values=pixels, min_new_tokens=2, max_new_tokens=2).shape[1])
"""


def recipe(source: str, **connector: Any) -> ModelRecipe:
    return ModelRecipe.model_validate(
        {
            "vision": {"from": source, "image_size": 64},
            "connector": {"kind": "average_pool", "num_tokens": 4} | connector,
            "language_model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2},
        }
    )


def build(source: str, **connector: Any) -> MM1ForConditionalGeneration:
    return build_model(recipe(source, **connector), vocab_size=64, image_token_id=3)


def test_every_family_is_tested():
    assert {*FAMILIES, "timm_wrapper"} == CONVOLUTIONAL


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_the_positions_of_the_last_feature_map(family, tmp_path):
    backbone = random_backbone(family)
    backbone.save_pretrained(tmp_path)
    tower = load_tower(str(tmp_path), 96)
    pixels = torch.randn(2, 3, 96, 96)
    features = backbone(pixels).last_hidden_state
    assert (tower.config.patch_size, tower.config.hidden_size) == (32, features.shape[1])
    assert features.shape[2:] == (3, 3)
    for _ in range(2):  # in use as in training, though batch norms and dropped paths of training would change it
        tokens = tower.train(not tower.training)(pixels).last_hidden_state
        assert torch.equal(tokens[:, 5], features[:, :, 1, 2])
    assert blocks_of(tower)
    assert tower_config(str(tmp_path), 96).to_dict() == tower.config.to_dict()


def test_a_folder_of_timm(tmp_path):
    pytest.importorskip("timm")
    config = TimmWrapperConfig.from_dict({"architecture": "resnet10t", "pretrained_cfg": STATISTICS})
    TimmWrapperModel(config).save_pretrained(tmp_path)
    tower = load_tower(str(tmp_path), 64)
    assert tower(torch.zeros(1, 3, 64, 64)).last_hidden_state.shape == (1, 4, 512)
    assert pixel_statistics(str(tmp_path)) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    TimmWrapperModel(TimmWrapperConfig(architecture="vit_tiny_patch16_224")).save_pretrained(tmp_path / "vit")
    with pytest.raises(UserError, match="is no convolutional tower: .* 197 x 192 values"):
        load_tower(str(tmp_path / "vit"))


def test_what_is_no_tower_is_refused(tmp_path, resnet):
    BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)).save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="is a bert: take one of .*clip_vision_model, .*resnet"):
        load_tower(str(tmp_path / "bert"))
    with pytest.raises(UserError, match="image_size: 336 is not a multiple of the stride 32: set it to 320 or 352"):
        tower_config(resnet, 336)
    inner = ModelRecipe.model_validate({"vision": {"from": resnet, "image_size": 64, "feature_layer": -2}})
    with pytest.raises(UserError, match=r"vision_feature_layer -2 .* a convolutional tower gives its last feature map"):
        recipe_config(inner, 64)


def test_statistics_of_pixels_are_imagenets(resnet):
    assert pixel_statistics(resnet)[0] == [0.485, 0.456, 0.406]


def test_a_classifier_loses_its_head(tmp_path, resnet):
    classifier = ResNetForImageClassification.from_pretrained(resnet)
    classifier.save_pretrained(tmp_path / "classifier")
    pixels = torch.randn(1, 3, 64, 64)
    towers = [load_tower(source)(pixels) for source in (resnet, str(tmp_path / "classifier"))]
    assert torch.equal(towers[0].last_hidden_state, towers[1].last_hidden_state)


@pytest.mark.parametrize("frozen", [True, False])
def test_training_changes_weights_and_no_statistics(resnet, frozen):
    model = build(resnet, kind="c_abstractor", depth=1, hidden_size=16)
    model.model.vision_tower.requires_grad_(not frozen)
    before = {name: tensor.clone() for name, tensor in model.model.vision_tower.state_dict().items()}
    batch = pack([[sample("i3i2", seed=0, size=64)]])
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(**batch).loss.backward()
    optimizer.step()
    changed = {name for name, tensor in model.model.vision_tower.state_dict().items() if not tensor.equal(before[name])}
    assert bool(changed) is not frozen
    assert not any("running" in name or "num_batches" in name for name in changed)


def test_a_saved_model_is_the_same_in_a_new_process(tmp_path, resnet):
    model = build(resnet).eval()
    model.save_pretrained(tmp_path / "model")
    pixels = torch.randn(1, 3, 64, 64)
    torch.save(pixels, tmp_path / "pixels.pt")
    wanted = image_tokens(model, pixels)
    with fresh_python(tmp_path) as python:
        kind, total, length = python.run(PROGRAM, tmp_path / "model", tmp_path / "pixels.pt", where=tmp_path)
        write_standalone_code(tmp_path / "model")
        alone = python.run(ALONE + PROGRAM, tmp_path / "model", tmp_path / "pixels.pt", where=tmp_path)
    assert alone == [kind, total, length]
    assert kind == "ConvolutionalTower"
    assert float(total) == pytest.approx(wanted.double().sum().item(), abs=1e-5)
    assert int(length) == 7


def test_a_rank_starts_with_the_same_weights_and_statistics(resnet):
    wanted = build(resnet).state_dict()
    for share in (Share(0, 1), Share(1, 2)):
        start = start_sharded(recipe(resnet), vocab_size=64, image_token_id=3, share=share)
        for name, parameter in start.model.named_parameters():
            rows = share.rows(len(parameter))
            assert torch.equal(start.part_of(name, parameter.shape), wanted[name][rows]), name
        for name, buffer in start.model.named_buffers():
            if "running" in name:
                assert torch.equal(buffer, wanted[name]), name


def test_sizes_are_counted(resnet):
    backbone = AutoModel.from_pretrained(resnet)
    model = build(resnet)
    assert parameters_by_part(model)["vision"] == sum(p.numel() for p in backbone.parameters())
    units = unit_flops(model)
    assert units.vision_backward == 2 * units.vision > 0
    resize_images(model, 128)
    assert model.config.patch_grid == 4
    assert unit_flops(model).vision == 4 * units.vision
    assert isinstance(model.model.vision_tower, ConvolutionalTower)
    assert image_tokens(model, torch.zeros(1, 3, 128, 128)).shape == (1, 4, 16)
