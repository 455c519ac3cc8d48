"""Which chat template a model has: the rule, and the ways to it that users take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from mm1.cli import app
from mm1.data.corpus import write_corpus
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.model.processor import chat_template
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import MM1Processor
from mm1.processing.tokenizer import train_tokenizer
from mm1.recipe import Recipe, load_recipe
from mm1.train.prepare import open_sequences
from tests.conftest import png
from tests.model.saved.make_saved import INSTRUCT
from tests.processing.sample_templates import BRACKETS
from tests.train import forked


def mm1(*arguments: object) -> str:
    """Run a command that succeeds."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object) -> str:
    """Run a command that refuses with a sentence, and return that."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert isinstance(result.exception, UserError)
    return str(result.exception)


def in_a_process(*arguments: object) -> None:
    """Run a command that succeeds in a process of its own."""
    done = forked.mm1(*arguments)
    assert done.returncode == 0, done.stderr


def instruct(folder: Path, template: str | None) -> Path:
    """Write a decoder that was trained on conversations by others."""
    tokenizer: Any = train_tokenizer(["a red square user assistant What is this?"] * 5, 320)
    tokenizer.chat_template = template
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=256,
        )
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def recipe(folder: Path, name: str, model: dict[str, Any], kind: str, corpus: str) -> Path:
    content = {
        "name": name,
        "model": model,
        "data": {
            "sequence_length": 48,
            "images_per_sequence": 4,
            "mixture": {kind: {"weight": 1.0, "sources": [{"corpus": corpus}]}},
        },
        "train": {"steps": 2, "batch_size": 2, "warmup_steps": 1, "dtype": "float32", "learning_rate": 1e-3},
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def around(decoder: Path, **more: Any) -> dict[str, Any]:
    return {
        "vision": {"image_size": 16, "patch_size": 8, "hidden_size": 16, "num_layers": 1, "num_heads": 2},
        "connector": {"kind": "average_pool", "num_tokens": 4},
        "language_model": {"from": str(decoder)},
        **more,
    }


@pytest.fixture
def corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions and conversations on a red square."""
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    red = Image(png("red"))
    captions = [Document(f"c{n}", "caption", (red, Text(" a red square"))) for n in range(20)]
    asked = (red, Text("What is this?", target=False), Text("A red square."))
    chats = [Document(f"d{n}", "chat", asked, {"turns": ["user", "user", "assistant"]}) for n in range(20)]
    for name, documents in (("captions", captions), ("chats", chats)):
        write_corpus(tmp_path / "data" / name, {"train": documents}, licence="none", sources=["made up"])


@pytest.mark.usefixtures("corpora")
def test_an_instruct_decoder_is_pretrained_captioned_with_and_fine_tuned(tmp_path: Path) -> None:
    decoder = instruct(tmp_path / "decoder", INSTRUCT)
    before, after = tmp_path / "before", tmp_path / "after"
    (tmp_path / "red.png").write_bytes(png("red"))
    mm1("pretrain", recipe(tmp_path, "pre", around(decoder), "caption", "captions/train"), "--to", before)
    assert not (before / "model" / "chat_template.jinja").exists()
    assert AutoTokenizer.from_pretrained(before / "model").chat_template is None
    in_a_process("caption", before, tmp_path / "red.png")
    mm1("sft", recipe(tmp_path, "chat", {"from": str(before)}, "chat", "chats/train"), "--to", after)
    assert (after / "model" / "chat_template.jinja").read_text() == default_chat_template()
    assert json.loads((after / "model" / "generation_config.json").read_text())["eos_token_id"] == 2
    in_a_process("caption", after, tmp_path / "red.png", "--question", "What is this?")
    taken = refused("sft", tmp_path / "chat.yaml", "--to", tmp_path / "no", "--set", "model.chat_template=decoder")
    assert "no decoder comes with this recipe" in taken
    # The ids of training are those of the processor that is saved.
    for run, text in (
        (before, "<image> a red square<eos>"),
        (after, "USER:<image> What is this?\nASSISTANT: A red square.<eos>"),
    ):
        dataset, processor = open_sequences(run), MM1Processor.from_pretrained(run / "model")
        right = processor(text=text, images=str(tmp_path / "red.png"))["input_ids"][0]
        assert dataset[0].input_ids[: len(right)].tolist() == right


@pytest.mark.usefixtures("corpora")
def test_a_decoders_template_is_taken_where_the_recipe_says_so(tmp_path: Path) -> None:
    decoder = instruct(tmp_path / "decoder", BRACKETS)
    file = recipe(tmp_path, "chat", around(decoder, chat_template="decoder"), "chat", "chats/train")
    mm1("sft", file, "--to", tmp_path / "run")
    assert (tmp_path / "run" / "model" / "chat_template.jinja").read_text() == BRACKETS
    instruct(tmp_path / "decoder", INSTRUCT)
    assert "doesn't say what the targets are: copy it to a file" in refused("sft", file, "--to", tmp_path / "other")


def given(tmp_path: Path, **model: Any) -> Recipe:
    kind = model.pop("kind", "chat")
    return load_recipe(str(recipe(tmp_path, "given", model, kind, "any/train")))


FROM = {"from": "runs/model"}
AROUND = {"language_model": {"from": "decoder"}}


@pytest.mark.parametrize(
    ("model", "brought", "right"),
    [
        ({}, None, "package"),
        ({"kind": "caption"}, None, None),
        (AROUND, None, "package"),
        (AROUND, INSTRUCT, "package"),
        (AROUND, BRACKETS, "package"),
        (AROUND | {"kind": "caption"}, BRACKETS, None),
        (AROUND | {"kind": "caption", "chat_template": "decoder"}, BRACKETS, BRACKETS),
        (AROUND | {"chat_template": "decoder"}, {"default": BRACKETS, "tools": INSTRUCT}, BRACKETS),
        (AROUND | {"chat_template": "package"}, BRACKETS, "package"),
        (FROM, None, "package"),
        (FROM, BRACKETS, BRACKETS),
        (FROM | {"kind": "caption"}, BRACKETS, BRACKETS),
        (FROM | {"kind": "caption"}, INSTRUCT, None),
        (FROM, INSTRUCT, "package"),
        (FROM | {"chat_template": "package"}, BRACKETS, "package"),
        (FROM | {"chat_template": "package", "kind": "caption"}, None, "package"),
        (FROM | {"chat_template": "FILE"}, BRACKETS, "of a file {% generation %}{% endgeneration %}"),
        ({"chat_template": "FILE"}, None, "of a file {% generation %}{% endgeneration %}"),
    ],
)
def test_the_rule(tmp_path: Path, model: dict[str, Any], brought: Any, right: str | None) -> None:
    if model.get("chat_template") == "FILE":
        (tmp_path / "own.jinja").write_text("of a file {% generation %}{% endgeneration %}")
        model = model | {"chat_template": str(tmp_path / "own.jinja")}
    found = chat_template(given(tmp_path, **model), brought)
    assert found == (default_chat_template() if right == "package" else right)


@pytest.mark.parametrize(
    ("model", "brought", "message"),
    [
        (AROUND | {"chat_template": "decoder"}, None, "'decoder' brings no chat template: leave the key out"),
        (AROUND | {"chat_template": "decoder"}, {"tools": BRACKETS}, "'decoder' brings no chat template"),
        (AROUND | {"chat_template": "decoder"}, INSTRUCT, "doesn't say what the targets are: copy it to a file"),
        (FROM | {"chat_template": "decoder"}, BRACKETS, "no decoder comes with this recipe"),
        ({"chat_template": "decoder"}, None, "no decoder comes with this recipe"),
        ({"chat_template": "nothing.jinja"}, None, "nothing.jinja: the chat template can't be read"),
    ],
)
def test_what_is_refused(tmp_path: Path, model: dict[str, Any], brought: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        chat_template(given(tmp_path, **model), brought)
