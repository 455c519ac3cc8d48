"""Use of a model whose decoder has weights of 8 or 4 bits."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from openai import OpenAI
from torch import nn
from typer.testing import CliRunner

from mm1.chat.session import ChatSettings, Session
from mm1.cli import app
from mm1.data.corpus import write_corpus
from mm1.document import Document, Image
from mm1.errors import UserError
from mm1.evaluate.caption import MAX_NEW_TOKENS, STOP, caption_image
from mm1.evaluate.compare import compare_runs
from mm1.evaluate.models.loading import load_generator
from mm1.model import MM1ForConditionalGeneration
from mm1.model.quantize import quantize_decoder
from mm1.recipe import load_recipe
from mm1.train.pretrain import pretrain
from tests.conftest import COLOURS, png, tiny_documents, tiny_recipe
from tests.serve.test_command import process

pytest.importorskip("torchao")


@pytest.fixture(scope="module")
def run(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose decoder has sizes that can be packed in 4 bits."""
    folder = tmp_path_factory.mktemp("quantize")
    content = tiny_recipe()
    content["model"]["language_model"] = {"hidden_size": 64, "num_layers": 2, "num_heads": 4}
    content["data"]["mixture"] = {"caption": {"weight": 1, "sources": [{"corpus": "captions/train"}]}}
    content["train"] |= {"steps": 30, "learning_rate": 0.003}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MM1_DATA", str(corpora))
        pretrain(load_recipe(str(folder / "tiny.yaml")), folder / "run")
    return folder / "run"


def squares(folder: Path) -> str:
    """Write a corpus and a task of captions of squares; return the task's file."""
    documents = [
        Document(f"s{n}", "caption", (Image(png(colour)),), {"caption": f"a {colour} square"})
        for n, colour in enumerate(list(COLOURS) * 2)
    ]
    write_corpus(folder / "squares", {"test": documents}, licence="none", sources=["made up"])
    file = folder / "colours.yaml"
    file.write_text(
        "description: Captions of squares.\ndata: {corpus: squares/test, answers: caption}\nprompt: '{image}'\n"
        "max_new_tokens: 8\nmetric: rouge_l\n"
    )
    return str(file)


def bytes_of(module: nn.Module) -> int:
    tensors: list[Any] = []
    for parameter in module.parameters():
        names = getattr(parameter, "tensor_data_names", None)
        tensors += [getattr(parameter, name) for name in names] if names else [parameter]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize(("name", "share", "error"), [("int8", 0.30, 0.02), ("int4", 0.23, 0.2)])
def test_layers_shrink_and_logits_stay_close(run: Path, name: str, share: float, error: float) -> None:
    plain = MM1ForConditionalGeneration.from_pretrained(run / "model").eval()
    small = copy.deepcopy(plain)
    quantize_decoder(small, name)
    layers: list[Any] = [p.model.language_model.layers for p in (plain, small)]
    assert bytes_of(layers[1]) < share * bytes_of(layers[0])
    for part in ("vision_tower", "connector"):
        before, after = (getattr(model.model, part).state_dict() for model in (plain, small))
        assert all(torch.equal(before[key], after[key]) for key in before)
    assert small.lm_head.weight is small.model.language_model.embed_tokens.weight
    ids = torch.arange(20, 60)[None]
    with torch.inference_mode():
        expected, logits = (model(input_ids=ids).logits for model in (plain, small))
    difference = float((logits - expected).norm() / expected.norm())
    assert 0 < difference < error


def test_what_can_not_be_quantized_is_refused(run: Path) -> None:
    model = MM1ForConditionalGeneration.from_pretrained(run / "model")
    with pytest.raises(UserError, match="'int2' is unknown: did you mean int8 or int4"):
        load_generator(run, quantize="int2")
    model.model.language_model.layers[1].mlp.up_proj = nn.Linear(48, 40)
    with pytest.raises(UserError, match=r"layers.1.mlp.up_proj has 48 inputs and 40 outputs, which must be multiples"):
        quantize_decoder(model, "int4")
    assert all(type(p) is nn.Parameter and p.dtype == torch.float32 for p in model.parameters())


def test_answers_don_t_depend_on_the_batch(run: Path) -> None:
    prompts = [Document(d.id, d.kind, d.parts[:1]) for d in tiny_documents("caption", 6)]
    for name in ("int8", "int4"):
        together, alone = (load_generator(run, quantize=name, batch_size=size) for size in (6, 1))
        answers = [g.generate(prompts, max_new_tokens=6, stop=["\n"]) for g in (together, alone)]
        assert answers[0] == answers[1]


def test_commands(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path))
    picture = tmp_path / "red.png"
    picture.write_bytes(png("red"))
    said = CliRunner().invoke(app, ["caption", str(run), str(picture), "--quantize", "int8"])
    assert said.exit_code == 0, said.output
    full = CliRunner().invoke(app, ["caption", str(run), str(picture)])
    assert "square" in full.stdout
    assert said.stdout == full.stdout
    task = squares(tmp_path)
    for extra in ([], ["--quantize", "int4"]):
        scored = CliRunner().invoke(
            app, ["evaluate", str(run), "--tasks", task, "--shots", "0", "--limit", "8", *extra]
        )
        assert scored.exit_code == 0, scored.output
    files = [run / "scores" / folder / "colours.0-shot.json" for folder in ("", "int4")]
    protocols = [json.loads(file.read_text())["protocol"] for file in files]
    assert "quantization" not in protocols[0]
    assert protocols[1]["quantization"].startswith("int4")
    assert compare_runs(run, run / "scores" / "int4")
    session = Session(str(run), ChatSettings(8, (), quantize="int8"))
    assert session.generator.protocol["quantization"].startswith("int8")
    chat = CliRunner().invoke(app, ["chat", str(run), "--quantize", "int3"], input="What?\n")
    assert "'int3' is unknown" in str(chat.exception)


def test_a_server_answers_as_the_caption_does(run: Path, tmp_path: Path) -> None:
    """By the command, in a process of its own; a run without a chat template takes completions."""
    picture = tmp_path / "red.png"
    picture.write_bytes(png("red"))
    with process(str(run), "--quantize", "int8") as (_, url, said):
        client: Any = OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
        address = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
        answer = client.completions.create(
            model=str(run),
            prompt="<image>",
            max_tokens=MAX_NEW_TOKENS,
            stop=list(STOP),
            extra_body={"images": [address]},
        )
    assert answer.choices[0].text.strip() == caption_image(run, picture, None, "int8"), said
