"""Models from checkpoints and from ranks: file by file, equal to what one process writes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mm1.model import MM1ForConditionalGeneration
from mm1.model.join import write_joined
from mm1.recipe import load_recipe
from mm1.train.pretrain import pretrain
from tests.train.forked import mm1

SPARSE = ["model.language_model.num_layers=2", "model.language_model.num_experts=4"]


@pytest.fixture
def run(request: pytest.FixtureRequest, recipe_file: Path, data: Path, tmp_path: Path) -> Path:
    """A run of a dense model, or with the settings that a test gives as a parameter."""
    pretrain(load_recipe(str(recipe_file), getattr(request, "param", [])), tmp_path / "run")
    return tmp_path / "run"


def export(*arguments: object) -> subprocess.CompletedProcess[str]:
    return mm1("export", *arguments)


@pytest.mark.parametrize("run", [[], SPARSE], ids=["dense", "sparse"], indirect=True)
def test_a_step_becomes_a_model(run: Path, tmp_path: Path) -> None:
    done = export(run, tmp_path / "out", "--step", 12)
    assert done.returncode == 0, done.stderr
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", run / "model"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for name in ("config.json", "generation_config.json"):
        written, wanted = (json.loads((folder / name).read_text()) for folder in (tmp_path / "out", run / "model"))
        assert written == wanted, name
    assert {file.name for file in (run / "model").iterdir()} == {file.name for file in (tmp_path / "out").iterdir()}
    assert "exists already" in export(run, tmp_path / "out").stderr


def test_what_is_not_there_is_named(run: Path, tmp_path: Path) -> None:
    done = export(run, "--step", 5)
    assert done.returncode == 2
    assert "the run has no checkpoint of step 5: there are 8, 12" in " ".join(done.stderr.split())
    assert "no such folder" in export(tmp_path / "nowhere").stderr


def test_large_models_are_written_in_several_files(run: Path, tmp_path: Path) -> None:
    model = MM1ForConditionalGeneration.from_pretrained(run / "model")
    write_joined(model, run / "checkpoints" / "step-000012", tmp_path, file_bytes=6_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 3
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    for file in files:
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
            assert all(index[name] == file.name for name in opened.keys())  # noqa: SIM118  (no mapping)
    again = MM1ForConditionalGeneration.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())
