"""The recipes for one GPU, mm1-mini and sft-mini, from data to scores, on small copies in the Hub's formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM, SiglipConfig, SiglipImageProcessor, SiglipModel
from typer.testing import CliRunner

from mm1.cli import app
from mm1.data.corpus import open_split
from mm1.errors import UserError
from mm1.processing.tokenizer import train_tokenizer
from mm1.recipe import load_recipe
from mm1.scaling.subject import shape_of
from tests.data.sample_sources import picture, webdataset_members, write_parquet, write_tar


def mm1(*arguments: object) -> None:
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def save_siglip2(folder: Path) -> Path:
    """Write a folder as `google/siglip2-base-patch16-256` has it: both towers, of the type `siglip`."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    sizes["num_attention_heads"] = 2
    text = {**sizes, "vocab_size": 64, "max_position_embeddings": 8, "projection_size": 16}
    vision = {**sizes, "image_size": 16, "patch_size": 4}
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "siglip"
    return folder


def save_smollm2(folder: Path) -> Path:
    """Write a folder as `HuggingFaceTB/SmolLM2-360M` has it: of the type `llama`, grouped heads, tied embeddings."""
    tokenizer = train_tokenizer(["a caption of a ramp, a page, a question: what is this?"] * 5, 320)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=3,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Local copies of the datasets, in their formats; the working directory and the data are the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    folder = tmp_path / "copies"
    for number in range(2):
        write_tar(folder / "cc3m" / f"cc3m-train-{number:04d}.tar", webdataset_members(6, first=6 * number))
    held = [{"bytes": picture(number), "path": None} for number in range(4)]
    pages = {
        "images": [[None, held[0], held[1]], [held[2], None, None]] * 4,
        "texts": [["A first text.", None, None], [None, "A second text.", "A third."]] * 4,
        "metadata": [json.dumps([None, None, None])] * 8,
        "general_metadata": [json.dumps({"url": "https://example.org/"})] * 8,
    }
    write_parquet(folder / "obelics" / "train-00000-of-00001.parquet", pages)
    write_parquet(folder / "web" / "000_00000.parquet", {"text": [f"A text of the web, number {n}." for n in range(8)]})
    chats = {
        "images": [[one] for one in held],
        "texts": [[{"user": "What is this?", "assistant": "A ramp.", "source": "test"}]] * 4,
    }
    for source in load_recipe("sft-mini").data.mixture["chat"].sources:
        write_parquet(folder / source.corpus.split("/")[1] / "train-00000.parquet", chats)
    return folder


SMALL = ["data.sequence_length=96", "data.images_per_sequence=5", "data.workers=0"]
SMALL += ["train.steps=2", "train.batch_size=2", "train.micro_batch_size=1", "train.warmup_steps=0"]
SMALL += ["train.compile=false", "train.dtype=float32", "train.device=cpu"]


def settings(*values: str) -> list[str]:
    return [part for value in values for part in ("--set", value)]


def test_the_whole_day_in_small(copies: Path, tmp_path: Path) -> None:
    mm1("data", "collect", "mm1-mini", "--local", copies, "--workers", 1)
    info = open_split("captions/cc3m").info
    assert (info["documents"], info["built"]["limit"]) == (12, 500_000)
    assert open_split("interleaved/obelics").info["images"] == 12
    parts = [f"model.vision.from={save_siglip2(tmp_path / 'tower')}", "model.vision.size=null"]
    parts += ["model.vision.image_size=16", "model.connector.num_tokens=4", "model.connector.hidden_size=16"]
    parts += [f"model.language_model.from={save_smollm2(tmp_path / 'decoder')}", "model.language_model.size=null"]
    mm1("pretrain", "mm1-mini", *settings(*parts, *SMALL))
    config = json.loads((tmp_path / "runs" / "mm1-mini" / "model" / "config.json").read_text())
    assert config["vision_config"]["model_type"] == "siglip_vision_model"
    assert config["text_config"]["model_type"] == "llama"
    mm1("data", "collect", "sft-mini", "--local", copies, "--workers", 1)
    mm1("sft", "sft-mini", *settings(*SMALL))
    lines = (tmp_path / "runs" / "sft-mini" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 2
    items = [{"image": {"bytes": picture(number)}, "answer": f"a ramp {number}"} for number in range(3)]
    write_parquet(tmp_path / "items.parquet", {key: [item[key] for item in items] for key in ("image", "answer")})
    task = {
        "description": "What is in a picture.",
        "data": {"file": "items.parquet", "answers": "answer"},
        "prompt": "{image} A photo of",
        "shots": {"file": "items.parquet"},
        "stop": ["\n"],
        "max_new_tokens": 2,
        "metric": "exact_match",
    }
    (tmp_path / "ramps.yaml").write_text(yaml.safe_dump(task))
    mm1("evaluate", "runs/mm1-mini", "--tasks", tmp_path / "ramps.yaml", "--shots", "0,1", "--device", "cpu")
    scores = {file.name for file in (tmp_path / "runs" / "mm1-mini" / "scores").glob("*.json")}
    assert scores == {"ramps.0-shot.json", "ramps.1-shot.json"}


@pytest.mark.parametrize("name", ["mm1-mini", "sft-mini"])
def test_mixtures_are_stated(name: str) -> None:
    recipe = load_recipe(name)
    assert sum(kind.weight for kind in recipe.data.mixture.values()) == pytest.approx(1)
    if name == "mm1-mini":
        assert [kind.weight for kind in recipe.data.mixture.values()] == [0.45, 0.45, 0.10]
    built = [source.build for kind in recipe.data.mixture.values() for source in kind.sources if source.build]
    assert all(build.hub and not build.revision for build in built)


def test_the_shape_needs_no_files(tmp_path: Path) -> None:
    model = shape_of(load_recipe("mm1-mini"))
    count = sum(parameter.numel() for parameter in model.model.language_model.parameters())
    assert count == 361_821_120 + 960  # SmolLM2-360M's, and a row for <image>
    save_smollm2(tmp_path)
    recipe = load_recipe("mm1-mini", [f"model.language_model.from={tmp_path}"])
    with pytest.raises(UserError, match=r"is no smollm2-360m \(its hidden_size is 24, not 960\)"):
        shape_of(recipe)
