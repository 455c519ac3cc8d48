"""What the machine lacks is said in a sentence; another way is taken only where the recipe has one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mm1.errors import UserError
from mm1.progress import console
from mm1.recipe import LanguageModelRecipe, TrainRecipe, load_recipe
from mm1.train.capabilities import autocast_dtype, decoder_attention, usable_attention
from mm1.train.pretrain import pretrain

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("part", ["vision", "language_model"])
@pytest.mark.parametrize(
    ("attention", "why"),
    [("flash_attention_2", "needs a GPU, and the device is cpu"), ("flex_attention", "has no backward pass on a CPU")],
)
def test_attention_that_is_not_there_is_refused_or_replaced(
    recipe_file: Path, data: Path, tmp_path: Path, part: str, attention: str, why: str
) -> None:
    key = f"model.{part}.attention"
    with pytest.raises(UserError, match=f"{key}: {attention} {why}: set it to sdpa, or to a list"):
        pretrain(load_recipe(str(recipe_file), [f"{key}={attention}"]), tmp_path / "run")
    with console.capture() as said:
        pretrain(load_recipe(str(recipe_file), [f"{key}=[{attention}, sdpa]"]), tmp_path / "run2")
    assert f"{key}: using sdpa, since {attention} {why}" in " ".join(said.get().split())


def test_attention_document_by_document_is_not_compiled() -> None:
    assert usable_attention("sdpa_packed", "key", CPU, None) == "sdpa_packed"
    assert usable_attention(["sdpa_packed", "sdpa"], "key", CPU, None, compiled=True) == "sdpa"
    with pytest.raises(
        UserError, match="key: sdpa_packed computes documents one by one, which train.compile does not support"
    ):
        usable_attention("sdpa_packed", "key", CPU, None, compiled=True)


def test_flash_attention_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from mm1.train import capabilities

    monkeypatch.setattr(capabilities, "is_flash_attn_2_available", lambda: False)
    with pytest.raises(UserError, match="flash_attention_2 needs the package flash-attn"):
        usable_attention("flash_attention_2", "key", GPU, torch.bfloat16)
    monkeypatch.setattr(capabilities, "is_flash_attn_2_available", lambda: True)
    assert usable_attention(["flash_attention_2", "sdpa"], "key", GPU, torch.bfloat16) == "flash_attention_2"
    assert usable_attention(["flash_attention_2", "flex_attention"], "key", GPU, None) == "flex_attention"


def test_a_gpu_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(UserError, match="train.dtype: Tesla T4 has no bfloat16: set train.dtype: float32, or auto"):
        autocast_dtype(TrainRecipe(dtype="bfloat16"), GPU)
    with console.capture() as said:
        assert autocast_dtype(TrainRecipe(dtype="auto"), GPU) is None
    assert "this GPU has no bfloat16; training in float32" in said.get()
    assert autocast_dtype(TrainRecipe(dtype="bfloat16"), CPU) is torch.bfloat16


WITHOUT_COMPILER = """
import torch
from mm1.errors import UserError
from mm1.train.capabilities import compiles

cpu = torch.device("cpu")
print(compiles(False, cpu), compiles("auto", cpu))
try:
    compiles(True, cpu)
except UserError as error:
    print(error)
"""


def test_without_a_compiler(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER],
        env={**os.environ, "COLUMNS": "300", "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "train.compile: not compiled, since torch.compile does not work on cpu" in result.stderr
    first, second = result.stdout.splitlines()
    assert first == "False False"
    assert second.startswith("train.compile: torch.compile does not work on cpu")
    assert "install a compiler" in second


def test_a_cpu_takes_the_attention_that_is_fastest_there() -> None:
    silent, told = LanguageModelRecipe(), LanguageModelRecipe.model_validate({"attention": "sdpa"})
    bfloat16 = torch.bfloat16
    assert decoder_attention(silent, CPU, None, sequence_length=256) == "varlen"
    assert decoder_attention(silent, CPU, None, sequence_length=256, compiled=True) == "eager"
    assert decoder_attention(silent, CPU, None, sequence_length=4096, compiled=True) == "sdpa"
    assert decoder_attention(silent, CPU, bfloat16, sequence_length=256) == "eager"
    assert decoder_attention(silent, CPU, bfloat16, sequence_length=4096) == "varlen"
    assert decoder_attention(told, CPU, None, sequence_length=256) == "sdpa"


def test_a_gpu_computes_documents_by_their_borders_unless_told_otherwise() -> None:
    silent, told = LanguageModelRecipe(), LanguageModelRecipe.model_validate({"attention": "sdpa"})
    assert decoder_attention(told, GPU) == "sdpa"
    assert usable_attention(decoder_attention(silent, GPU), "key", GPU, torch.bfloat16) == "varlen"
    assert usable_attention(decoder_attention(silent, GPU), "key", GPU, None) == "sdpa"
    with pytest.raises(UserError, match="varlen needs train.dtype: bfloat16 on a GPU"):
        usable_attention("varlen", "key", GPU, None)
