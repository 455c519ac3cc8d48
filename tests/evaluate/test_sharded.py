"""Ranks that hold one model between them score it as one process does, word for word."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mm1.cli import main
from mm1.data.corpus import write_corpus
from mm1.errors import UserError
from mm1.evaluate.models.divided import division
from mm1.evaluate.run import evaluate_run
from mm1.evaluate.settings import EvaluationSettings
from mm1.model import MM1Config, build_model
from mm1.model.processor import token_ids
from mm1.recipe import ModelRecipe
from tests.train.test_ranks import free_port

from .conftest import COLORS, question
from .test_any_model import idefics3
from .test_evaluate_model import BASE

ROOT = Path(__file__).parents[2]
SECONDS = 120
TASKS: dict[str, dict[str, Any]] = {
    "squares": {},
    "nearest": {"shots": {"corpus": "squares/shots", "selection": "nearest"}, "floors": []},
    "chosen": {
        "data": {"corpus": "squares/test", "answers": "color", "options": "colors"},
        "shots": {"corpus": "squares/shots"},
        "likelihood": "sum",
        "floors": [],
    },
}
SPARSE = {
    "vision": {"image_size": 16, "patch_size": 8, "hidden_size": 16, "num_layers": 1, "num_heads": 2},
    "connector": {"kind": "average_pool", "num_tokens": 4},
    "language_model": {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "num_experts": 4},
}


def torchrun(ranks: int, *arguments: str) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--master_addr", "127.0.0.1"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, *launcher, "--master_port", str(free_port()), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model, processor) -> Iterator[Path]:
    """A folder with the data, the tasks, and the models `dense`, `sparse` and `idefics3`."""
    place = tmp_path_factory.mktemp("sharded")
    splits = {
        split: [replace(d, meta={**(d.meta or {}), "colors": list(COLORS)}) for d in documents]
        for split, documents in {
            "test": [question("test", n) for n in range(20)],
            "shots": [question("shots", n) for n in range(100, 130)],
        }.items()
    }
    write_corpus(place / "data" / "squares", splits, licence="none needed", sources=["made here"])
    for name, changes in TASKS.items():
        content = {key: value for key, value in {**BASE, **changes}.items() if key != "name"}
        (place / f"{name}.yaml").write_text(json.dumps(content))
    torch.manual_seed(0)
    sparse = build_model(
        ModelRecipe.model_validate(SPARSE), **{key: value for key, value in token_ids(processor).items()}
    )
    other, its_processor = idefics3()
    for name, made, with_processor in (
        ("dense", model, processor),
        ("sparse", sparse, processor),
        ("idefics3", other, its_processor),
    ):
        if made is not model:
            for parameter in made.parameters():
                parameter.data.mul_(4.0)
        made.save_pretrained(place / name)
        with_processor.save_pretrained(place / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MM1_DATA", str(place / "data"))
        yield place


def jobs(place: Path, to: str) -> list[dict[str, Any]]:
    tasks = {name: list(TASKS) for name in ("dense", "sparse")} | {"idefics3": ["squares"]}
    return [
        {
            "model": str(place / name),
            "tasks": [str(place / f"{task}.yaml") for task in asked],
            "shots": [0, 4],
            "to": str(place / to / name),
        }
        for name, asked in tasks.items()
    ]


@pytest.fixture(scope="module")
def scored(place: Path) -> Path:
    """The same, with the results of one process in `one`, and in `two` those of two ranks with one model."""
    file = place / "jobs.json"
    file.write_text(json.dumps(jobs(place, "two")))
    job = torchrun(2, "-m", "tests.evaluate.sharded_ranks", "2", str(file))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mm1.evaluate.scoring.PART", 6)
        for alone in jobs(place, "one"):
            settings = EvaluationSettings(tasks=alone["tasks"], shots=alone["shots"], device="cpu")
            evaluate_run(alone["model"], settings=settings, to=Path(alone["to"]))
    _, said = job.communicate(timeout=SECONDS)
    assert job.returncode == 0, said
    return place


@pytest.mark.parametrize("name", ["dense", "sparse", "idefics3"])
def test_two_ranks_with_one_model_give_the_files_of_one_process(scored: Path, name: str) -> None:
    one = {file.name: file.read_text() for file in (scored / "one" / name).glob("*.*")}
    two = {file.name: file.read_text() for file in (scored / "two" / name).glob("*.*")}
    assert two == one
    assert len(one) == (4 if name == "idefics3" else 12)
    for file, content in one.items():
        if file.startswith("squares") and file.endswith("json"):  # else a model that says one thing would pass
            assert len({answer["prediction"] for answer in json.loads(content)["predictions"]}) > 3


@pytest.mark.parametrize("name", ["dense", "sparse"])
def test_a_rank_holds_its_part_of_the_decoder(scored: Path, name: str) -> None:
    from mm1.model import MM1ForConditionalGeneration

    whole = dict(MM1ForConditionalGeneration.from_pretrained(scored / name).named_parameters())
    for rank in range(2):
        parts = json.loads((scored / f"jobs.{rank}.json").read_text())[str(scored / name)]
        for parameter, tensor in whole.items():
            divided = "language_model" in parameter and tensor.ndim > 1 and ".gate." not in parameter
            assert (parameter in parts) == divided
            if divided:
                assert 2 * torch.Size(parts[parameter]).numel() == tensor.numel()
        if name == "sparse":
            (experts,) = {shape[0] for key, shape in parts.items() if ".experts." in key}
            assert experts == 2
