"""Models that start in parts: every part equals the rows of the model built whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    Dinov2Config,
    LlamaConfig,
    LlamaForCausalLM,
    SiglipVisionConfig,
)

from mm1.errors import UserError
from mm1.model.factory import build_model
from mm1.model.fresh import FreshWeights
from mm1.model.shape import recipe_config
from mm1.model.sharded_start import Share, start_sharded
from mm1.recipe import ModelRecipe
from mm1.rehearse.watch import Watch

VISION = {"image_size": 16, "patch_size": 4, "hidden_size": 16, "num_layers": 2, "num_heads": 2}
LANGUAGE = {"hidden_size": 32, "num_layers": 2, "num_heads": 4}
CONNECTOR: dict[str, Any] = {"num_tokens": 4, "depth": 1, "hidden_size": 16}
TOKENS: dict[str, Any] = {
    "vocab_size": 67,
    "image_token_id": 66,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOWER: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 24,
    "patch_size": 4,
}


def recipe(vision: Any = VISION, language: Any = LANGUAGE, connector: Any = CONNECTOR) -> ModelRecipe:
    return ModelRecipe.model_validate({"vision": vision, "connector": connector, "language_model": language})


def check(model: ModelRecipe, parts: int = 3) -> None:
    """Compare all parts with the whole model."""
    whole = build_model(model, **TOKENS, seed=5)
    for part in range(parts):
        share = Share(part, parts)
        start = start_sharded(model, **TOKENS, seed=5, share=share)
        for config in (whole.config.vision_config, start.model.config.vision_config):
            config.dtype = "float32"  # some say none, which means the same
        assert start.model.config.to_dict() == whole.config.to_dict()
        assert start.model.generation_config.to_dict() == whole.generation_config.to_dict()
        wanted = dict(whole.named_parameters())
        assert [name for name, _ in start.model.named_parameters()] == list(wanted)
        for name, parameter in start.model.named_parameters():
            assert parameter.is_meta
            own: tuple[slice, ...] = (share.rows(len(parameter)),)
            if ".mlp.experts." in name:
                own = share.of_experts(*parameter.shape[:2])
            values = start.part_of(name, parameter.shape)
            torch.testing.assert_close(values.float(), wanted[name][own], rtol=0, atol=0, msg=name)
        for (name, buffer), theirs in zip(start.model.named_buffers(), whole.buffers(), strict=True):
            assert torch.equal(buffer, theirs), name


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"language": {**LANGUAGE, "tie_embeddings": False}},
        {"language": {**LANGUAGE, "architecture": "qwen3", "num_kv_heads": 2}},
        {"language": {**LANGUAGE, "architecture": "olmo2"}},
        {"language": {**LANGUAGE, "num_experts": 4, "tie_embeddings": False}},
        {"connector": {"kind": "attention_pool", "num_tokens": 4}},
        {"connector": {"kind": "mlp", "num_tokens": 16}},
        {"connector": {"kind": "average_pool", "num_tokens": 4}},
    ],
    ids=lambda parts: str(parts),
)
def test_fresh_weights(parts: dict[str, Any]) -> None:
    check(recipe(**parts))


def test_more_parts_than_rows() -> None:
    check(recipe(), parts=40)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("words", [60, 67, 80])
def test_a_decoder_whose_words_grow_or_not(tmp_path: Path, tied: bool, words: int) -> None:
    LlamaForCausalLM(LlamaConfig(**LLAMA, vocab_size=words, tie_word_embeddings=tied)).save_pretrained(tmp_path)
    check(recipe(language={"from": str(tmp_path)}))


def test_a_decoder_in_bfloat16_and_several_files(tmp_path: Path) -> None:
    decoder = LlamaForCausalLM(LlamaConfig(**LLAMA, vocab_size=67)).bfloat16()
    decoder.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    check(recipe(language={"from": str(tmp_path)}))


@pytest.mark.parametrize("copies", [True, False])
def test_experts_from_a_dense_decoder(tmp_path: Path, copies: bool) -> None:
    LlamaForCausalLM(LlamaConfig(**LLAMA, vocab_size=67)).save_pretrained(tmp_path)
    check(recipe(language={"from": str(tmp_path), "num_experts": 4, "upcycle": copies}))


@pytest.mark.parametrize("parts", [2, 4, 8])
@pytest.mark.parametrize("start", ["fresh", "upcycled", "whole"])
def test_experts_that_are_spread(tmp_path: Path, start: str, parts: int) -> None:
    """Over as many parts as there are experts, over fewer, and over more, which share the rows of each."""
    language: dict[str, Any] = {**LANGUAGE, "num_experts": 4, "tie_embeddings": False}
    if start == "upcycled":
        LlamaForCausalLM(LlamaConfig(**LLAMA, vocab_size=67)).save_pretrained(tmp_path)
        language = {"from": str(tmp_path), "num_experts": 4}
    model = recipe(language=language)
    if start == "whole":
        build_model(model, **TOKENS, seed=9).save_pretrained(tmp_path)
        model = model.model_copy(update={"from_": str(tmp_path)})
    check(model, parts=parts)


def test_the_decoder_of_a_whole_model(tmp_path: Path) -> None:
    build_model(recipe(language={**LANGUAGE, "tie_embeddings": False}), **TOKENS, seed=9).save_pretrained(tmp_path)
    check(recipe(language={"from": str(tmp_path)}))


@pytest.mark.parametrize("size", [24, 16])
@pytest.mark.parametrize("config", [CLIPVisionConfig(**TOWER), SiglipVisionConfig(**TOWER), Dinov2Config(**TOWER)])
def test_a_tower(tmp_path: Path, config: Any, size: int) -> None:
    AutoModel.from_config(config).save_pretrained(tmp_path)
    check(recipe(vision={"from": str(tmp_path), "image_size": size}))


def test_the_vision_half_of_two_towers(tmp_path: Path) -> None:
    text = {**LLAMA, "vocab_size": 50, "num_hidden_layers": 1, "bos_token_id": 1, "eos_token_id": 2}
    CLIPModel(CLIPConfig(text_config=text, vision_config=TOWER)).save_pretrained(tmp_path)
    check(recipe(vision={"from": str(tmp_path), "image_size": 24}))


@pytest.mark.parametrize("size", [24, 16])
def test_an_open_clip_tower(tmp_path: Path, size: int) -> None:
    write_open_clip(tmp_path)
    check(recipe(vision={"from": str(tmp_path), "image_size": size}))


@pytest.mark.parametrize("size", [16, 24])
@pytest.mark.parametrize("kind", ["c_abstractor", "mlp"])
def test_a_whole_model(tmp_path: Path, size: int, kind: str) -> None:
    tokens = 16 if kind == "mlp" else 4
    build_model(recipe(connector={"kind": kind, "num_tokens": tokens}), **TOKENS, seed=9).save_pretrained(tmp_path)
    check(ModelRecipe.model_validate({"from": str(tmp_path), "vision": {"image_size": size}}))


@pytest.mark.parametrize("tied", [True, False])
def test_one_part_is_the_whole_model(tied: bool) -> None:
    model = recipe(language={**LANGUAGE, "tie_embeddings": tied})
    start = start_sharded(model, **TOKENS, seed=5, share=Share(0, 1))
    start.fill(torch.device("cpu"))
    assert (start.model.lm_head.weight is start.model.get_input_embeddings().weight) == tied
    whole = build_model(model, **TOKENS, seed=5).state_dict()
    for name, tensor in start.model.state_dict().items():
        assert torch.equal(tensor, whole[name]), name


def test_a_whole_model_with_a_tower_of_older_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """DINOv2's tensors are saved under other names than the library gives them in memory."""
    AutoModel.from_config(Dinov2Config(**TOWER)).save_pretrained(tmp_path / "tower")
    first = recipe(vision={"from": str(tmp_path / "tower"), "image_size": 24})
    build_model(first, **TOKENS, seed=9).save_pretrained(tmp_path / "whole")
    check(ModelRecipe.model_validate({"from": str(tmp_path / "whole"), "vision": {"image_size": 16}}))
    assert "every process loads it whole" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("layers", [1, 3])
def test_an_open_clip_tower_of_another_depth_is_refused(tmp_path: Path, layers: int) -> None:
    write_open_clip(tmp_path)
    file = tmp_path / "open_clip_config.json"
    content = json.loads(file.read_text())
    content["model_cfg"]["vision_cfg"]["layers"] = layers
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="16 tensors do not fit a plain CLIP ViT"):
        start_sharded(recipe(vision={"from": str(tmp_path), "image_size": 24}), **TOKENS, share=Share(0, 2))


def test_open_clips_weights_beside_a_configuration_of_transformers(tmp_path: Path) -> None:
    """DFN-5B's repository has both configurations."""
    write_open_clip(tmp_path)
    text = {**LLAMA, "vocab_size": 50, "num_hidden_layers": 1}
    CLIPConfig(text_config=text, vision_config=TOWER).save_pretrained(tmp_path)
    check(recipe(vision={"from": str(tmp_path), "image_size": 24}))
    (tmp_path / "open_clip_model.safetensors").rename(tmp_path / "open_clip_pytorch_model.safetensors")
    check(recipe(vision={"from": str(tmp_path), "image_size": 24}))


def test_a_stated_size_must_be_the_towers(tmp_path: Path) -> None:
    AutoModel.from_config(CLIPVisionConfig(**TOWER)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is no vit-tiny"):
        recipe_config(recipe(vision={"from": str(tmp_path), "size": "vit-tiny", "image_size": 24}), 67)


def test_a_run_that_resumes_draws_nothing() -> None:
    state = torch.get_rng_state()
    start = start_sharded(recipe(), **TOKENS, seed=5, share=Share(0, 2), resumes=True)
    start.fill(torch.device("cpu"), values=False)
    whole = build_model(recipe(), **TOKENS, seed=5)
    assert torch.equal(state, torch.get_rng_state())
    for (name, buffer), theirs in zip(start.model.named_buffers(), whole.buffers(), strict=True):
        assert torch.equal(buffer, theirs), name


def test_no_more_than_one_parameter_is_whole() -> None:
    """Counts the bytes that exist at once while a rank draws its parts."""
    start = start_sharded(recipe(), **TOKENS, seed=5, share=Share(0, 2))
    watch = Watch()
    with watch:
        for name, parameter in start.model.named_parameters():
            start.part_of(name, parameter.shape)
    largest = max(parameter.nbytes for parameter in start.model.parameters())
    assert largest <= sum(watch.ledger.peak([""]).values()) < largest + 2 * torch.get_rng_state().nbytes


def test_only_what_is_not_read_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LlamaForCausalLM(LlamaConfig(**LLAMA, vocab_size=67)).save_pretrained(tmp_path)
    draw, drawn = FreshWeights.draw, []

    def drawing(weights: FreshWeights, name: str) -> torch.Tensor:
        drawn.append(name)
        return draw(weights, name)

    monkeypatch.setattr(FreshWeights, "draw", drawing)
    start = start_sharded(recipe(language={"from": str(tmp_path)}), **TOKENS, share=Share(0, 2))
    parameters = dict(start.model.named_parameters())
    for name, parameter in parameters.items():
        start.part_of(name, parameter.shape)
    assert drawn == [name for name in parameters if name.startswith(("model.vision_tower.", "model.connector."))]


def write_open_clip(folder: Path) -> None:
    """Write a checkpoint in the layout of open_clip."""
    width, layers = 64, 2
    vision = {"width": width, "layers": layers, "patch_size": 4, "image_size": 24, "head_width": 32}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 8, "vision_cfg": vision}}))
    shapes: dict[str, tuple[int, ...]] = {
        "class_embedding": (width,),
        "positional_embedding": (37, width),
        "conv1.weight": (width, 3, 4, 4),
        "proj": (width, 8),
        **{f"ln_{where}.{kind}": (width,) for where in ("pre", "post") for kind in ("weight", "bias")},
    }
    for layer in range(layers):
        block = f"transformer.resblocks.{layer}."
        shapes |= {f"{block}ln_{n}.{kind}": (width,) for n in (1, 2) for kind in ("weight", "bias")}
        shapes |= {
            f"{block}attn.in_proj_weight": (3 * width, width),
            f"{block}attn.in_proj_bias": (3 * width,),
            f"{block}attn.out_proj.weight": (width, width),
            f"{block}attn.out_proj.bias": (width,),
            f"{block}mlp.c_fc.weight": (4 * width, width),
            f"{block}mlp.c_fc.bias": (4 * width,),
            f"{block}mlp.c_proj.weight": (width, 4 * width),
            f"{block}mlp.c_proj.bias": (width,),
        }
    tensors = {f"visual.{name}": torch.randn(shape) for name, shape in shapes.items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
