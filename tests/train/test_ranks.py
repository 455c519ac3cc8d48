"""Two real processes train as one does, also when one of them, or both, have no images."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import ResNetConfig, ResNetModel

from mm1.recipe import load_recipe
from mm1.train.pretrain import pretrain
from tests.conftest import breaking_at
from tests.train.forked import end, start_ranks

# Mostly text, one sequence a rank: micro-batches with images on both ranks, on one, on none.
MOSTLY_TEXT = ["data.mixture.text.weight=1.5", "train.batch_size=2", "train.steps=16"]
WATCHDOG_SECONDS = 240


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def train_on_two(recipe_file: Path, run: Path, data: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    """Train on two ranks, forked from a process that has imported everything."""
    arguments = ["pretrain", recipe_file, "--to", run, *(part for setting in settings for part in ("--set", setting))]
    return run_on_two(arguments, Path(f"{run}.log"), data)


def run_on_two(arguments: Sequence[object], log: Path, data: Path) -> subprocess.CompletedProcess[str]:
    """Run `mm1 ARGUMENTS` on two such ranks; the code is that of the first rank that fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MM1_DATA", str(data))
        codes = end(start_ranks(2, arguments, log))
    said = "".join(Path(f"{log}.{rank}").read_text() for rank in range(2))
    return subprocess.CompletedProcess(list(map(str, arguments)), next(filter(None, codes), 0), stderr=said)


def train_with_torchrun(recipe_file: Path, run: Path, data: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1"]
    command = [sys.executable, *launcher, "--master_port", str(free_port()), "-m", "mm1", "pretrain", str(recipe_file)]
    command += ["--to", str(run), *(argument for setting in settings for argument in ("--set", setting))]
    return subprocess.run(
        command,
        env={**os.environ, "MM1_DATA": str(data), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=WATCHDOG_SECONDS,
        check=False,
    )


def lines_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def column(run: Path, name: str) -> list[float]:
    return [line[name] for line in lines_of(run)]


def test_two_ranks_train_as_one(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    pretrain(load_recipe(str(recipe_file), MOSTLY_TEXT), one)
    result = train_with_torchrun(recipe_file, two, data, *MOSTLY_TEXT)
    assert result.returncode == 0, result.stderr
    for name in ("loss", "grad_norm"):
        assert column(two, name) == pytest.approx(column(one, name), rel=2e-4)
    for name in ("step", "tokens", "images"):
        assert column(two, name) == column(one, name)
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (two, one))
    assert ours.keys() == theirs.keys()
    for name in theirs:
        if name.endswith("k_proj.bias"):
            continue  # attention does not depend on it: its gradient is rounding, which Adam makes large
        assert torch.allclose(ours[name], theirs[name], atol=1e-4), name
    # The run did meet every case: images on both ranks, on one, on none.
    images = np.diff([0, *column(one, "images")])
    assert 0 in images
    assert len(set(images)) > 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_ranks_share_a_convolutional_tower(recipe_file: Path, data: Path, tmp_path: Path, dtype: str) -> None:
    """Its statistics come from the tower's folder on every rank, stay as they are, and are in the result."""
    torch.manual_seed(0)
    backbone = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 24], depths=[1, 1, 1, 1]))
    for name, buffer in backbone.named_buffers():
        if "running" in name:
            buffer.uniform_(0.01, 0.1)
    backbone.save_pretrained(tmp_path / "tower")
    settings = [
        f"model.vision.from={tmp_path / 'tower'}",
        "model.vision.image_size=64",
        f"train.dtype={dtype}",
        *MOSTLY_TEXT,
    ]
    if dtype == "bfloat16":  # at the recipe's rate, a processor without units for it drifts apart by rounding alone
        settings.append("train.learning_rate=0.004")
    one, two = tmp_path / "one", tmp_path / "two"
    pretrain(load_recipe(str(recipe_file), settings), one)
    result = train_on_two(recipe_file, two, data, *settings)
    assert result.returncode == 0, result.stderr
    assert column(two, "loss") == pytest.approx(column(one, "loss"), rel=2e-4 if dtype == "float32" else 2e-3)
    for run in (one, two):
        trained = load_file(run / "model" / "model.safetensors")
        for name, tensor in backbone.state_dict().items():
            same = trained[f"model.vision_tower.backbone.{name}"].equal(tensor)
            assert same is name.endswith(("running_mean", "running_var", "num_batches_tracked")), name


def test_a_run_goes_on_with_another_number_of_ranks(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    pretrain(load_recipe(str(recipe_file)), whole)
    with breaking_at(6):
        pretrain(load_recipe(str(recipe_file)), run)
    result = train_on_two(recipe_file, run, data)
    assert result.returncode == 0, result.stderr
    assert "resuming from step 4" in result.stderr
    assert column(run, "loss") == pytest.approx(column(whole, "loss"), rel=2e-4)
    assert column(run, "tokens") == column(whole, "tokens")


def test_a_batch_that_ranks_cant_share_is_named(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    result = train_on_two(recipe_file, tmp_path / "run", data, "train.batch_size=3")
    assert result.returncode != 0
    assert "train.batch_size 3 is not a multiple of 2 ranks" in result.stderr


def test_replicas_of_a_sharded_model_train_as_one_process(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    settings = ["train.replicas=2", "train.steps=4", "train.checkpoint_every=2"]
    pretrain(load_recipe(str(recipe_file), ["train.steps=4", "train.checkpoint_every=2"]), tmp_path / "one")
    result = train_on_two(recipe_file, tmp_path / "two", data, *settings)
    assert result.returncode == 0, result.stderr
    assert column(tmp_path / "two", "loss") == pytest.approx(column(tmp_path / "one", "loss"), rel=2e-4)


def test_adafactor_on_two_ranks_is_that_of_one(recipe_file: Path, data: Path, tmp_path: Path) -> None:
    """In one go on one rank; begun on one, gone on with on two."""
    one, two, setting = tmp_path / "one", tmp_path / "two", "train.optimizer=adafactor"
    pretrain(load_recipe(str(recipe_file), [setting]), one)
    with breaking_at(6):
        pretrain(load_recipe(str(recipe_file), [setting]), two)
    result = train_on_two(recipe_file, two, data, setting)
    assert result.returncode == 0, result.stderr
    assert column(two, "loss") == pytest.approx(column(one, "loss"), rel=1e-4)
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (two, one))
    for name in theirs:
        if not name.endswith("k_proj.bias"):
            assert torch.allclose(ours[name], theirs[name], atol=1e-4), name
