"""Training of a tiny model on small real corpora: stops, goes on, and comes to the same end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from transformers import CLIPVisionConfig, CLIPVisionModel

from mm1.data.corpus import write_corpus
from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration
from mm1.processing.processor import MM1Processor
from mm1.recipe import load_recipe
from mm1.train.pretrain import pretrain
from tests.conftest import KINDS, breaking_at, tiny_documents
from tests.train.forked import end, start


def lines_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses_of(run: Path) -> list[float]:
    return [line["loss"] for line in lines_of(run)]


@pytest.fixture(scope="module")
def finished(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny recipe that nothing interrupted."""
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def whole(data: Path, recipe_file: Path, finished: Path) -> Path:
    pretrain(load_recipe(str(recipe_file)), finished)
    return finished


def test_a_run_holds_everything(whole: Path) -> None:
    lines = lines_of(whole)
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert {"loss/caption", "loss/interleaved", "learning_rate", "grad_norm", "tokens_per_second"} <= lines[0].keys()
    assert lines[-1]["loss"] < lines[0]["loss"]
    plan = json.loads((whole / "plan" / "plan.json").read_text())
    assert lines[-1]["tokens"] == plan["tokens"]
    assert lines[-1]["images"] == plan["images"]
    environment = json.loads((whole / "environment.json").read_text())
    assert environment["plan_hash"] == plan["hash"]
    model = MM1ForConditionalGeneration.from_pretrained(whole / "model")
    assert sum(p.numel() for p in model.parameters()) == sum(environment["parameters"].values())
    assert MM1Processor.from_pretrained(whole / "model").tokens_per_image == 4
    assert len(list((whole / "checkpoints").iterdir())) == 2


def test_stopped_at_any_step_it_comes_to_the_same_end(whole: Path, recipe_file: Path, tmp_path: Path) -> None:
    for broken_at in (0, 3, 4, 9):
        run = tmp_path / f"run-{broken_at}"
        with breaking_at(broken_at):
            pretrain(load_recipe(str(recipe_file)), run)
        pretrain(load_recipe(str(recipe_file)), run)
        assert losses_of(run) == losses_of(whole)
        ours, theirs = (load_file(r / "model" / "model.safetensors") for r in (run, whole))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_whose_towers_last_layer_is_skipped_goes_on(data: Path, recipe_file: Path, tmp_path: Path) -> None:
    """No gradient reaches what lies behind the layer that the connector reads: the optimizer holds nothing for it."""
    config = CLIPVisionConfig(image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    CLIPVisionModel(config).save_pretrained(tmp_path / "tower")
    content = yaml.safe_load(recipe_file.read_text())
    content["model"]["vision"] = {"from": str(tmp_path / "tower"), "image_size": 16, "feature_layer": -2}
    recipe_file.write_text(yaml.safe_dump(content))
    recipe = load_recipe(str(recipe_file))
    pretrain(recipe, tmp_path / "whole")
    with breaking_at(9):
        pretrain(recipe, tmp_path / "broken")
    pretrain(recipe, tmp_path / "broken")
    assert losses_of(tmp_path / "broken") == losses_of(tmp_path / "whole")
    ours, theirs = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("broken", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_accumulated_micro_batches_give_the_large_batchs_losses(whole: Path, recipe_file: Path, tmp_path: Path) -> None:
    pretrain(load_recipe(str(recipe_file), ["train.micro_batch_size=1"]), tmp_path / "run")
    assert losses_of(tmp_path / "run") == pytest.approx(losses_of(whole), rel=1e-5)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_asked_to_stop_it_saves_and_says_so(
    recipe_file: Path, data: Path, tmp_path: Path, number: int, code: int
) -> None:
    run = tmp_path / "run"
    command: list[object] = ["pretrain", recipe_file, "--to", run]
    command += ["--set", "train.steps=20000", "--set", "train.checkpoint_every=20000"]
    process = start(command, tmp_path / "log")
    log, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while not (log.is_file() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(UserError, match="another process is training this run"):
        pretrain(load_recipe(str(recipe_file), changes={"train.steps": 20000, "train.checkpoint_every": 20000}), run)
    assert process.pid
    os.kill(process.pid, number)
    assert end([process]) == [code]
    assert "the same command resumes" in (tmp_path / "log").read_text()
    (saved,) = (run / "checkpoints").iterdir()
    assert json.loads((saved / "state.json").read_text())["step"] == lines_of(run)[-1]["step"]


def test_another_recipe_is_refused_with_its_keys(whole: Path, recipe_file: Path) -> None:
    before = (whole / "recipe.yaml").read_text()
    with pytest.raises(UserError, match=r"train\.batch_size \(4 there, 8 now\).*--to"):
        pretrain(load_recipe(str(recipe_file), ["train.batch_size=8"]), whole)
    assert (whole / "recipe.yaml").read_text() == before


def test_a_directory_of_something_else_is_refused(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="not a run directory and not empty"):
        pretrain(load_recipe(str(recipe_file)), tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["letter.txt"]


def test_a_full_disk_keeps_the_last_good_checkpoint(
    recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data, calls = HuggingFaceStorageWriter.write_data, []

    def filling(self, *args):
        calls.append(self)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write_data(self, *args)

    monkeypatch.setattr(HuggingFaceStorageWriter, "write_data", filling)
    with pytest.raises(UserError, match=r"No space left on device.*earlier ones are intact"):
        pretrain(load_recipe(str(recipe_file)), tmp_path / "run")
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000004"]


def test_a_missing_corpus_is_named_before_anything_is_written(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no corpus there.*mm1 data build captions"):
        pretrain(load_recipe(str(recipe_file)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there_is_named(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.device: 'cuda:7' can't be used here"):
        pretrain(load_recipe(str(recipe_file), ["train.device=cuda:7"]), tmp_path / "run")


def test_a_run_whose_corpus_changed_is_not_gone_on_with(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    for name, kind in KINDS.items():
        write_corpus(tmp_path / "data" / name, {"train": tiny_documents(kind, 40)}, licence="none", sources=[])
    run = tmp_path / "run"
    with breaking_at(9):
        pretrain(load_recipe(str(recipe_file)), run)
    before = (run / "plan" / "plan.json").read_bytes()
    write_corpus(tmp_path / "data" / "pages", {"train": tiny_documents("interleaved", 41)}, licence="none", sources=[])
    with pytest.raises(UserError, match="since the corpus pages/train changed: .*start another run with --to"):
        pretrain(load_recipe(str(recipe_file)), run)
    assert (run / "plan" / "plan.json").read_bytes() == before
    shutil.rmtree(run / "plan")  # the run's environment.json still says which it was
    with pytest.raises(UserError, match="since a corpus, the tokenizer or the recipe changed: .*with --to"):
        pretrain(load_recipe(str(recipe_file)), run)
    (run / "environment.json").unlink()
    with pytest.raises(UserError, match="neither environment.json nor plan/plan.json says which plan"):
        pretrain(load_recipe(str(recipe_file)), run)
    shutil.rmtree(run / "checkpoints")  # nothing is trained by the old plan any more, so a new one may be made
    pretrain(load_recipe(str(recipe_file)), run)
    assert (run / "plan" / "plan.json").read_bytes() != before


def test_pictures_cut_into_sub_images_are_trained_on_and_scored_alike(
    data: Path, recipe_file: Path, tmp_path: Path
) -> None:
    run, cut = tmp_path / "run", ["model.resolution.grid=2x2", "data.images_per_sequence=20"]
    pretrain(load_recipe(str(recipe_file), [*cut, "data.sequence_length=160", "train.steps=4"]), run)
    plan = json.loads((run / "plan" / "plan.json").read_text())
    assert lines_of(run)[-1]["images"] == plan["images"]
    assert plan["images"] % 5 == 0
    processor = MM1Processor.from_pretrained(run / "model")
    encoded = processor.encode(tiny_documents("caption", 1)[0])
    assert encoded.image_lengths.tolist() == [20]
