"""`mm1 export --to onnx`: ONNX Runtime answers as the model does, for other sizes than the traced ones too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import DynamicCache
from transformers.exporters import ExportedModel

from mm1.errors import UserError
from mm1.export import onnx
from mm1.export.check import load
from mm1.export.export import export_model
from mm1.processing.processor import build_processor
from tests.model.builders import tiny_config, tiny_model
from tests.processing.sample_tokenizers import own

from .use import picture


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A sparse model, its ONNX folder and what the check found."""
    folder = tmp_path_factory.mktemp("onnx")
    processor = build_processor(own(), 16, 4)
    text = tiny_config().text_config
    text.vocab_size = len(processor.tokenizer)
    text.num_hidden_layers = 1
    model = tiny_model(
        text_config=text,
        image_token_id=processor.image_token_id,
        connector="c_abstractor",
        vision_feature_layer=-2,
        moe_num_experts=4,
        moe_every=1,
    )
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    written, found = export_model(str(folder / "model"), folder / "onnx", "onnx")
    assert found is not None
    return folder / "model", written, found


def test_the_check_is_the_model_s(exported: tuple[Path, Path, str], capfd: pytest.CaptureFixture[str]) -> None:
    _, _, found = exported
    assert 0 < float(found.split("logits: ")[1].split()[0]) < 1e-3
    assert capfd.readouterr().out == ""


@torch.no_grad()
def test_greedy_answers_are_the_model_s(exported: tuple[Path, Path, str]) -> None:
    source, folder, _ = exported
    model, processor = load(source)
    inputs = processor(text="<image> is red, and <image>", images=[[picture("red", 40, 20)] * 2], return_tensors="pt")
    wanted = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    runners = ExportedModel.from_pretrained(folder).runners
    ids, words = inputs["input_ids"], []
    embeds = runners["embed_tokens"](input=ids)
    images = runners["image_features"](pixel_values=inputs["pixel_values"])
    embeds[ids == processor.image_token_id] = images.flatten(0, 1)
    cache, known = DynamicCache([(torch.zeros(1, 2, 0, 8), torch.zeros(1, 2, 0, 8))]), 0
    for _ in range(len(wanted)):
        known += embeds.shape[1]
        mask = torch.ones(1, known, dtype=torch.long)
        found: Any = runners["decoder"](**onnx._decoder_inputs(embeds, mask, cache))
        logits, cache = found["logits"][:, -1], found["past_key_values"]
        logits[:, processor.image_token_id] = -torch.inf  # as generation_config.json says
        words.append(int(logits.argmax()))
        embeds = runners["embed_tokens"](input=torch.tensor([words[-1:]]))
    assert words == wanted.tolist()


@pytest.mark.parametrize("images", [1, 3])
def test_onnx_runtime_alone(exported: tuple[Path, Path, str], images: int) -> None:
    source, folder, _ = exported
    pixels = torch.randn(images, 3, 16, 16)
    session = onnxruntime.InferenceSession(folder / "image_features.onnx")
    (found,) = session.run(None, {"pixel_values": pixels.numpy()})
    with torch.no_grad():
        wanted = load(source)[0].get_image_features(pixels).pooler_output
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnx, "is_onnxscript_available", lambda: False)
    with pytest.raises(UserError, match="pip install"):
        onnx.write_onnx(tmp_path, tmp_path / "out")
