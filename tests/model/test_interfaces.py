"""What the library and those who build on it ask of a model: outputs, Auto classes, experts, devices, the Trainer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import infer_auto_device_map, init_empty_weights
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    LlamaConfig,
    Trainer,
    TrainingArguments,
)
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS as FUNCTIONS
from transformers.modeling_outputs import BaseModelOutputWithPooling, ModelOutput

from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration
from mm1.model.configuration import CONNECTORS
from mm1.model.sparse import SparseBlock

from .builders import IMAGE, pack, sample, tiny_config, tiny_model

MOE = {"moe_num_experts": 4, "moe_every": 2}
ROWS = [[sample("i5", 1), sample("3i2i4", 2)]]


def tensors_only(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(tensors_only, value))
    return isinstance(value, torch.Tensor)


@pytest.mark.parametrize("changes", [{}, MOE])
def test_outputs_hold_tensors_only(changes: dict[str, int]) -> None:
    model = tiny_model(**changes)
    inputs = {name: value for name, value in pack(ROWS).items() if not name.startswith("target")}
    found: list[Any] = [model(**pack(ROWS), output_router_logits=True), model.model(**inputs)]
    for outputs in found:
        assert isinstance(outputs, ModelOutput)
        assert all(tensors_only(value) for name, value in outputs.items() if name != "past_key_values")
        predictions = outputs.keys() - set(model.config.keys_to_ignore_at_inference)
        assert predictions <= {"logits", "last_hidden_state", "loss"}
    assert all((outputs.routing is None) == (not changes) for outputs in found)


@pytest.mark.parametrize("layer", [-1, -2])
def test_image_features_are_an_output_of_the_library(layer: int) -> None:
    model, pixels = tiny_model(vision_feature_layer=layer), torch.randn(2, 3, 16, 16)
    for part in (model, model.model):
        features: Any = part.get_image_features(pixels)
        assert isinstance(features, BaseModelOutputWithPooling)
        features = part.get_image_features(pixels)
        assert features.pooler_output.shape == (2, 4, 32)
        assert features.last_hidden_state.shape == (2, 17, 16)
        assert features.hidden_states is None
        assert torch.equal(features.flatten(0, 1), features.pooler_output.flatten(0, 1))
        as_tuple: Any = part.get_image_features(pixels, return_dict=False)
        assert isinstance(as_tuple, tuple)
        assert torch.equal(as_tuple[1], features.pooler_output)
        asked: Any = part.get_image_features(pixels, output_hidden_states=True)
        assert len(asked.hidden_states) == 3


@pytest.mark.parametrize("auto", [AutoModelForImageTextToText, AutoModelForMultimodalLM])
def test_auto_classes_load_a_folder(auto: Any, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    assert isinstance(auto.from_pretrained(tmp_path), MM1ForConditionalGeneration)


@pytest.mark.parametrize("kind", [UserError, ValueError])
@pytest.mark.parametrize("images", [1, 3])
def test_a_wrong_number_of_pictures_is_a_value_error(kind: type[Exception], images: int) -> None:
    ids = torch.tensor([[1, *[IMAGE] * 8, 5]])
    with pytest.raises(kind, match=f"8 image tokens in the text, but {images} images of 4 tokens need {4 * images}"):
        tiny_model()(ids, torch.zeros(images, 3, 16, 16))


def blocks(model: torch.nn.Module) -> list[SparseBlock]:
    return [module for module in model.modules() if isinstance(module, SparseBlock)]


@pytest.mark.parametrize("way", ["eager", "batched_mm", "grouped_mm"])
def test_experts_are_computed_as_asked_for(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(**MOE, moe_implementation="batched_mm")
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["moe_implementation"] == "batched_mm"
    used: list[str] = []

    def counted(name: str, function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def call(*args: Any) -> torch.Tensor:
            used.append(name)
            return function(*args)

        return call

    for name in ("batched_mm", "grouped_mm"):
        monkeypatch.setitem(FUNCTIONS._global_mapping, name, counted(name, FUNCTIONS[name]))
    default = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, experts_implementation=way).eval()
    ids = torch.randint(4, 64, (2, 9))
    with torch.no_grad():
        wanted = default(ids).logits
        assert used == ["batched_mm"]
        used.clear()
        torch.testing.assert_close(loaded(ids).logits, wanted, atol=1e-4, rtol=1e-4)
        assert used == ([] if way == "eager" else [way])
        default.set_experts_implementation(way)
        used.clear()
        torch.testing.assert_close(default(ids).logits, wanted, atol=1e-4, rtol=1e-4)
        assert used == ([] if way == "eager" else [way])
    assert default.get_experts_implementation()[""] == way


def test_a_way_to_compute_experts_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="magic"):
        tiny_model(**MOE).set_experts_implementation("magic")


def test_router_logits_are_returned_when_asked_for(tmp_path: Path) -> None:
    model, ids = tiny_model(**MOE | {"moe_every": 1}), torch.randint(4, 64, (2, 9))
    assert model(ids).router_logits is None
    asked = model(ids, output_router_logits=True)
    assert [logits.shape for logits in asked.router_logits] == [(18, 4), (18, 4)]
    assert torch.equal(asked.aux_loss, model(ids).routing.loss)
    model.config.output_router_logits = True
    model.save_pretrained(tmp_path)
    loaded = MM1ForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert loaded(ids).router_logits is not None
    assert loaded(ids, output_router_logits=False).router_logits is None
    assert tiny_model()(ids, output_router_logits=True).router_logits is None


@pytest.mark.parametrize("every", [1, 2])
def test_what_a_dense_folder_lacks_is_drawn(tmp_path: Path, every: int) -> None:
    """Through the user's door: a sparse model of the folder of a dense one."""
    dense = tiny_model()
    dense.save_pretrained(tmp_path)
    for _ in range(3):  # memory that was not written differs from time to time
        sparse = MM1ForConditionalGeneration.from_pretrained(tmp_path, moe_num_experts=8, moe_every=every)
        assert len(blocks(sparse)) == 2 // every
        for block in blocks(sparse):
            for name, weight in block.named_parameters():
                assert weight.isfinite().all(), name
                assert 0.1 < weight.std() < 0.3, name  # the tiny configuration's initializer_range is 0.2
                assert weight.mean().abs() < 0.1, name
        assert sparse(torch.tensor([[1, 5, 6]])).logits.isfinite().all()
        kept = dense.state_dict()
        for name, weight in sparse.state_dict().items():
            if name in kept:
                assert torch.equal(weight, kept[name]), name


def test_what_a_sparse_folder_has_is_not_drawn_again(tmp_path: Path) -> None:
    model = tiny_model(**MOE)
    model.save_pretrained(tmp_path)
    for loaded in (AutoModelForImageTextToText.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        base = loaded.base_model
        for name, weight in model.model.state_dict().items():
            assert torch.equal(base.state_dict()[name], weight), name


@pytest.mark.parametrize("connector", sorted(CONNECTORS))
@pytest.mark.parametrize("budget", range(5, 200, 15))
def test_a_connector_is_not_split_over_devices(connector: str, budget: int) -> None:
    tokens = 16 if connector == "mlp" else 4
    with init_empty_weights():
        model = MM1ForConditionalGeneration(tiny_config(connector=connector, image_seq_length=tokens, **MOE))
    places = infer_auto_device_map(model, {0: budget * 1000, 1: 10**9}, no_split_module_classes=model._no_split_modules)
    parts = [name for name in places if name.startswith("model.connector.")]
    blocks = [name for name in places if ".mlp." in name or ".self_attn." in name]
    assert parts == []
    assert blocks == []


@pytest.mark.parametrize("tied", [False, True])
def test_tensor_parallelism_has_a_plan_for_the_head_and_the_experts(tied: bool) -> None:
    text = tiny_config().text_config.to_dict() | {"tie_word_embeddings": tied}
    model = tiny_model(text_config=LlamaConfig(**text), **MOE)
    assert model.tp_plan["lm_head"] == "colwise_gather_output"
    experts = "model.language_model.layers.*.mlp.experts"
    assert {f"{experts}.gate_up_proj", f"{experts}.down_proj", experts} <= model.tp_plan.keys()
    assert {f"{experts}.gate_up_proj", f"{experts}.down_proj", experts} == model.ep_plan.keys()
    assert not any("experts" in name for name in tiny_model().tp_plan)


def row(images: int, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(4, 64, (11 - 4 * images,), generator=generator).tolist()
    return {"ids": [1, *[IMAGE] * 4 * images, *words], "pixels": torch.randn(images, 3, 16, 16, generator=generator)}


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([r["ids"] for r in rows])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    pixels = torch.cat([r["pixels"] for r in rows])
    return batch | ({"pixel_values": pixels} if len(pixels) else {})


@pytest.mark.parametrize("changes", [{}, MOE, MOE | {"moe_every": 1}])
@pytest.mark.parametrize("counts", [[1, 1, 1, 1], [1, 2, 0, 0], [0, 1, 2, 0], [0, 0, 0, 0]])
def test_the_trainer_evaluates_and_predicts(tmp_path: Path, changes: dict[str, int], counts: list[int]) -> None:
    model = tiny_model(**changes)
    rows: Any = [row(count, n) for n, count in enumerate(counts)]
    seen: list[Any] = []

    def metrics_of(found: Any) -> dict[str, float]:
        seen.append(found.predictions)
        return {"ok": 1.0}

    args = TrainingArguments(
        str(tmp_path), per_device_eval_batch_size=2, remove_unused_columns=False, report_to=[], use_cpu=True
    )
    trainer = Trainer(
        model,
        args,
        data_collator=collate,
        eval_dataset=rows,
        compute_metrics=metrics_of,
    )
    metrics = trainer.evaluate()
    predicted = trainer.predict(rows)
    with torch.no_grad():
        alone = np.concatenate([model(**collate([r])).logits.numpy() for r in rows])
    for predictions in (seen[0], predicted.predictions):
        np.testing.assert_allclose(predictions, alone, atol=1e-4)
    assert np.isfinite(metrics["eval_loss"])
