"""Fine-tuning on conversations: the paper's recipe, its data, and a tiny model from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mm1.cli import app
from mm1.data.collect import collect
from mm1.data.corpus import open_split, write_corpus
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.processing.processor import MM1Processor
from mm1.recipe import Recipe, load_recipe
from mm1.train.prepare import open_sequences
from mm1.train.pretrain import pretrain
from mm1.train.sft import fine_tune
from tests.conftest import breaking_at, png
from tests.data.sample_sources import picture, write_lines, write_parquet


def chats(count: int) -> list[Document]:
    """Questions on the colour of a square, every third conversation without a picture."""
    made = []
    for n in range(count):
        colour = ("red", "green", "blue", "yellow")[n % 4]
        alone = n % 3 == 2
        asked = Text("Say blue." if alone else "Colour?", target=False)
        first = (asked,) if alone else (Image(png(colour)), asked)
        roles = ["user"] * len(first) + ["assistant"]
        parts = (*first, Text("blue" if alone else colour))
        made.append(Document(f"c{n}", "chat", parts, {"turns": roles}))
    return made


@pytest.fixture
def base(data: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pre-trained run, and a corpus of conversations beside the others."""
    own = tmp_path / "data"
    own.mkdir()
    for corpus in data.iterdir():
        (own / corpus.name).symlink_to(corpus)
    monkeypatch.setenv("MM1_DATA", str(own))
    write_corpus(own / "chats", {"train": chats(40)}, licence="none", sources=["made up"])
    pretrain(load_recipe(str(recipe_file), ["train.steps=3", "train.warmup_steps=1"]), tmp_path / "base")
    return tmp_path / "base"


def recipe_of(base: Path, tmp_path: Path, **model: Any) -> Path:
    content = {
        "name": "tiny-chat",
        "model": {"from": str(base), **model},
        "data": {
            "sequence_length": 64,
            "images_per_sequence": 10,
            "mixture": {
                "chat": {"weight": 0.8, "sources": [{"corpus": "chats/train"}]},
                "interleaved": {"weight": 0.2, "sources": [{"corpus": "pages/train"}]},
            },
        },
        "train": {
            "steps": 5, "batch_size": 4, "optimizer": "adafactor",
            "learning_rate": 0.01, "connector_learning_rate": None,
            "warmup_steps": 0, "final_learning_rate": 0.0, "log_every": 1, "checkpoint_every": 2, "dtype": "float32",
        },
    }  # fmt: skip
    file = tmp_path / "chat.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_from_end_to_end(base: Path, tmp_path: Path) -> None:
    """Answers alone are learned, with pre-training documents mixed in; the model keeps the template and is scored."""
    run, task = tmp_path / "chat", tmp_path / "colours.yaml"
    captions = {"corpus": "captions/train"}
    about = {"description": "Colours.", "data": captions, "shots": captions, "prompt": "{image}", "metric": "accuracy"}
    task.write_text(yaml.safe_dump(about | {"max_new_tokens": 4}))
    scored = ["--evaluate", "--set", f"evaluate={{tasks: ['{task}'], shots: [0], limit: 3}}"]
    result = CliRunner().invoke(app, ["sft", str(recipe_of(base, tmp_path)), "--to", str(run), *scored])
    assert result.exit_code == 0, result.output
    assert (run / "scores" / "colours.0-shot.json").is_file()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"loss/chat", "loss/interleaved"} <= {key for line in lines for key in line}
    assert lines[-1]["loss/chat"] < lines[0]["loss/chat"]
    dataset = open_sequences(run)
    tokenizer, seen = dataset.processor.tokenizer, set()
    for number in range(len(dataset)):
        sequence = dataset[number]
        if dataset.kinds[dataset.plan.source[number]] == 3:
            target = tokenizer.decode(sequence.target_ids)
            seen |= set(target.split("<eos>"))
    assert seen == {"", " red", " green", " blue", " yellow"}
    assert MM1Processor.from_pretrained(run / "model").chat_template == dataset.processor.chat_template
    assert MM1Processor.from_pretrained(base / "model").chat_template is None


def test_stopped_and_gone_on_with_it_comes_to_the_same_end(base: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(recipe_of(base, tmp_path, resolution={"grid": "1x2"})))
    fine_tune(recipe, tmp_path / "whole")
    with breaking_at(3):
        fine_tune(recipe, tmp_path / "broken")
    fine_tune(recipe, tmp_path / "broken")
    ends = [(tmp_path / run / "metrics.jsonl").read_text().splitlines()[-1] for run in ("whole", "broken")]
    assert json.loads(ends[0])["loss"] == json.loads(ends[1])["loss"]


def test_what_fine_tuning_needs(recipe_file: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'tiny': fine-tuning needs conversations"):
        fine_tune(load_recipe(str(recipe_file)), tmp_path / "run")
    with pytest.raises(UserError, match="'sft': fine-tuning needs a trained model to start from: set model.from"):
        fine_tune(load_recipe("sft"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def papers() -> Recipe:
    return load_recipe("sft", ["model.from=runs/3b"])


def test_the_papers_recipe() -> None:
    """Paper sec. 4: 10k steps, batch 256, 2,048 tokens, Adafactor, 1e-5, cosine, nothing frozen; 1344 pixels."""
    recipe = papers()
    sources = recipe.data.mixture["chat"].sources
    assert len(sources) == 17
    assert sum(source.weight for source in sources) == 1448  # thousands: the 1.45M of the paper
    assert {source.corpus: source.weight for source in sources}["sft/synthdog-en"] == 500
    train = recipe.train
    assert (train.steps, train.batch_size, recipe.data.sequence_length) == (10_000, 256, 2048)
    assert (train.optimizer, train.learning_rate, train.connector_learning_rate) == ("adafactor", 1e-5, None)
    assert (train.final_learning_rate, train.freeze) == (0, [])
    assert recipe.model.image_size == 672
    assert recipe.model.resolution.grid == "2x2"
    suffixes = {source.build.options.get("suffix") for source in sources if source.build}
    assert "Answer with the option's letter from the given choices directly." in suffixes
    assert load_recipe("sft", ["model.from=x"]).to_yaml() == load_recipe("sft", ["model.from=x"]).to_yaml()


def test_collecting_from_local_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    copies = tmp_path / "copies"
    rounds = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "This."}]
    write_lines(copies / "text" / "a.jsonl", [{"messages": rounds}])
    columns = {"image": [picture(1)], "question": ["Is it?"], "answer": ["yes"]}
    write_parquet(copies / "vqav2" / "0.parquet", columns)
    write_parquet(copies / "ai2d" / "0.parquet", {**columns, "choices": [["yes", "no"]]})
    recipe = papers()
    few = [
        s for s in recipe.data.mixture["chat"].sources if s.corpus in ("sft/text", "sft/vqav2", "sft/ai2d", "sft/gqa")
    ]
    mixture = {"chat": recipe.data.mixture["chat"].model_copy(update={"sources": few})}
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"mixture": mixture})})
    assert collect(recipe, copies, workers=1) == ["sft/gqa"]
    (asked,) = (d for d in open_split("sft/vqav2"))
    assert asked.text == "Is it?\nAnswer the question using a single word or phrase.yes"
    (chosen,) = (d for d in open_split("sft/ai2d"))
    assert "A. yes\nB. no\nAnswer with the option's letter" in chosen.text
    assert chosen.text.endswith("A")


def test_collecting_names_what_is_missing(tmp_path: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    source = "{corpus: sft/gqa, build: {format: questions}}"
    mixture = f"data.mixture={{chat: {{weight: 1, sources: [{source}]}}}}"
    result = CliRunner().invoke(app, ["data", "collect", "sft", "--set", mixture])
    assert "1 sources have neither a local copy nor a dataset of the Hub: sft/gqa" in str(result.exception)
    with pytest.raises(UserError, match="recipe 'tiny': no source says how it is built"):
        collect(load_recipe(str(recipe_file)))
