"""What else is put around a model: adapters, quantization, several devices, faster generation, streams."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    TextIteratorStreamer,
    Trainer,
    TrainingArguments,
)

from tests.peers.builders import COLOURS, build, inputs, load, save

GREEDY = {"max_new_tokens": 6, "do_sample": False}


@pytest.fixture(params=[0, 4], ids=["dense", "sparse"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save(tmp_path / "model", request.param)


def words(model: Any, processor: Any, **settings: Any) -> list[list[int]]:
    return model.eval().generate(**inputs(processor, COLOURS), **(GREEDY | settings)).tolist()


@pytest.mark.parametrize("reentrant", [False, True])
def test_lora_is_trained_saved_loaded_and_merged(folder: Path, tmp_path: Path, reentrant: bool) -> None:
    model, processor = load(folder)
    batch = inputs(processor, COLOURS)
    with torch.no_grad():
        before = model.eval()(**batch).logits
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)"))
    rows = [
        {"input_ids": batch["input_ids"][i], "attention_mask": batch["attention_mask"][i]}
        | {"pixel_values": batch["pixel_values"][i], "labels": batch["input_ids"][i]}
        for i in range(len(COLOURS))
    ]
    args = TrainingArguments(
        str(tmp_path / "run"),
        max_steps=4,
        learning_rate=0.1,
        report_to=[],
        use_cpu=True,
        remove_unused_columns=False,
        save_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": reentrant},
    )
    Trainer(model=adapted, args=args, train_dataset=rows).train()
    with torch.no_grad():
        trained = adapted.eval()(**batch).logits
    assert (trained - before).abs().max() > 1e-3
    adapted.save_pretrained(str(tmp_path / "adapter"))
    again = PeftModel.from_pretrained(load(folder)[0], tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).logits, trained)
        torch.testing.assert_close(again.merge_and_unload()(**batch).logits, trained, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bits", [4, 8])
def test_bitsandbytes_loads_and_generates(folder: Path, bits: int) -> None:
    model, processor = load(folder)
    settings = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    quantized = AutoModelForImageTextToText.from_pretrained(folder, quantization_config=settings, dtype=torch.float32)
    kinds = {type(m).__module__.split(".")[0] for m in quantized.modules()}
    assert "bitsandbytes" in kinds
    batch = inputs(processor, COLOURS)
    with torch.no_grad():
        far = (quantized.eval()(**batch).logits - model.eval()(**batch).logits).abs().mean()
        spread = model(**batch).logits.std()
    assert far < 0.5 * spread
    assert len(words(quantized, processor)) == len(COLOURS)


@pytest.mark.parametrize("where", ["auto", "split"])
def test_device_map(folder: Path, tmp_path: Path, where: str) -> None:
    """On one device, and with layers that lie on the disk until they are used."""
    model, processor = load(folder)
    places: Any = "auto"
    if where == "split":
        decoder = "model.language_model"
        places = dict.fromkeys(["model.vision_tower", "model.connector", "lm_head"], "cpu")
        places |= {f"{decoder}.layers.{n}": "disk" for n in range(2)}
        places |= {f"{decoder}.{name}": "cpu" for name in ("embed_tokens", "norm", "rotary_emb")}
    mapped = AutoModelForImageTextToText.from_pretrained(
        folder, device_map=places, offload_folder=str(tmp_path / "disk"), dtype=torch.float32
    )
    assert words(mapped, processor) == words(model, processor)


def test_assisted_decoding_with_another_model(folder: Path) -> None:
    model, processor = load(folder)
    assistant, _ = build()
    batch = inputs(processor, COLOURS[:1])
    alone = model.eval().generate(**batch, **GREEDY)
    assert model.generate(**batch, **GREEDY, assistant_model=assistant.eval()).tolist() == alone.tolist()


def test_static_cache(folder: Path) -> None:
    model, processor = load(folder)
    assert words(model, processor, cache_implementation="static") == words(model, processor)


def test_streaming(folder: Path) -> None:
    model, processor = load(folder)
    batch = inputs(processor, COLOURS[:1])
    whole = model.eval().generate(**batch, **GREEDY)[0, batch["input_ids"].shape[1] :]
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    thread = Thread(target=model.generate, kwargs=batch | GREEDY | {"streamer": streamer})
    thread.start()
    assert "".join(streamer) == processor.decode(whole, skip_special_tokens=True)
    thread.join()
