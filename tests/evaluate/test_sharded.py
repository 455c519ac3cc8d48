"""Ranks that hold one model between them score it as one process does, word for word."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from mm1.model import MM1Config, MM1ForConditionalGeneration, build_model
from mm1.model.processor import token_ids
from mm1.recipe import ModelRecipe
from tests.evaluate import sharded_ranks
from tests.train.forked import end, start_ranks

from .conftest import COLORS, question
from .test_any_model import idefics3
from .test_evaluate_model import BASE

MODELS = {
    "dense": ["squares", "nearest", "chosen"],
    "sparse": ["squares", "nearest", "chosen"],
    "idefics3": ["squares"],
}
"""The models, with the tasks that each is scored on."""
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


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model, processor) -> Iterator[Path]:
    """A folder with the data, the tasks, and the models `dense`, `sparse` and `idefics3`."""
    place = tmp_path_factory.mktemp("sharded")
    splits = {
        split: [replace(d, meta={**(d.meta or {}), "colors": list(COLORS)}) for d in documents]
        for split, documents in {
            "test": [question("test", n) for n in range(14)],
            "shots": [question("shots", n) for n in range(100, 116)],
        }.items()
    }
    write_corpus(place / "data" / "squares", splits, licence="none needed", sources=["made here"])
    for name, changes in TASKS.items():
        content = {key: value for key, value in {**BASE, **changes}.items() if key != "name"}
        (place / f"{name}.yaml").write_text(json.dumps(content))
    torch.manual_seed(0)
    sparse = build_model(ModelRecipe.model_validate(SPARSE), **token_ids(processor))
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


@dataclass
class Scored:
    """The results of one process in `one`, those of two groups of ranks in `groups`; how the four ranks ended."""

    place: Path
    codes: list[int | None]
    seconds_from_kill_to_end: float


@pytest.fixture(scope="module")
def scored(place: Path) -> Scored:
    commands = []
    for name, tasks in MODELS.items():
        files = [str(place / f"{task}.yaml") for task in tasks]
        command = ["evaluate", str(place / name), "--tasks", ",".join(files), "--shots", "0,4"]
        commands.append([*command, "--ranks-per-model", "2", "--to", str(place / "groups" / name)])
    again = [*commands[0][:-1], str(place / "killed")]
    jobs = place / "jobs.json"
    jobs.write_text(json.dumps([*commands, again]))
    # Nobody looks after these ranks: each ends by itself.
    ranks = start_ranks(4, [jobs], place / "log", program=sharded_ranks.main, environment={"CUDA_VISIBLE_DEVICES": ""})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mm1.evaluate.scoring.PART", 6)
        for name, tasks in MODELS.items():
            settings = EvaluationSettings(
                tasks=[str(place / f"{task}.yaml") for task in tasks], shots=[0, 4], device="cpu"
            )
            evaluate_run(str(place / name), settings=settings, to=place / "one" / name)
    codes = end(ranks)
    ended = time.time()
    written = [place / f"jobs.{rank}.json" for rank in range(4)]
    assert all(file.exists() for file in written), (place / "log.0").read_text()
    return Scored(place, codes, ended - max(file.stat().st_mtime for file in written))


@pytest.mark.parametrize("name", ["dense", "sparse", "idefics3"])
def test_pairs_of_ranks_with_a_model_each_give_the_files_of_one_process(scored: Scored, name: str) -> None:
    one, groups = (
        {file.name: file.read_text() for file in (scored.place / to / name).iterdir()} for to in ("one", "groups")
    )
    assert groups == one
    assert len(one) == (4 if name == "idefics3" else 12)
    for file, content in one.items():
        if file.startswith("squares") and file.endswith("json"):  # else a model that says one thing would pass
            assert len({answer["prediction"] for answer in json.loads(content)["predictions"]}) > 3


@pytest.mark.parametrize("name", ["dense", "sparse"])
def test_a_rank_holds_its_part_of_the_decoder(scored: Scored, name: str) -> None:
    whole = dict(MM1ForConditionalGeneration.from_pretrained(scored.place / name).named_parameters())
    for rank in range(4):
        parts = json.loads((scored.place / f"jobs.{rank}.json").read_text())[str(scored.place / name)]
        for parameter, tensor in whole.items():
            divided = "language_model" in parameter and tensor.ndim > 1 and ".gate." not in parameter
            assert (parameter in parts) == divided
            if divided:
                assert 2 * torch.Size(parts[parameter]).numel() == tensor.numel()
        if name == "sparse":
            (experts,) = {shape[0] for key, shape in parts.items() if ".experts." in key}
            assert experts == 2


def test_a_killed_rank_ends_the_command(scored: Scored) -> None:
    assert scored.codes[1] == -9
    assert 0 not in scored.codes
    assert scored.seconds_from_kill_to_end < 60
    assert not list((scored.place / "killed").glob("*.json"))


def test_ranks_that_make_no_whole_groups_are_a_sentence(scored: Scored, capsys, monkeypatch) -> None:
    command = [
        "evaluate",
        str(scored.place / "dense"),
        "--tasks",
        str(scored.place / "squares.yaml"),
        "--ranks-per-model",
        "2",
    ]
    monkeypatch.setattr(sys, "argv", ["mm1", *command])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert (
        "1 rank is no multiple of it: start that many, such as torchrun --nproc_per_node 2" in capsys.readouterr().err
    )


def test_heads_and_experts_that_cannot_be_divided_are_a_sentence(scored: Scored) -> None:
    cpu = torch.device("cpu")
    dense, sparse = (MM1Config.from_pretrained(scored.place / name) for name in ("dense", "sparse"))
    assert division("m", dense, 1, cpu) == {}
    with pytest.raises(UserError, match=r"^m: 3 ranks .* because 2 attention heads, 2 key-value heads can't be"):
        division("m", dense, 3, cpu)
    sparse.text_config.num_attention_heads = sparse.text_config.num_key_value_heads = 8
    with pytest.raises(UserError, match=r"because 4 experts can't be divided by 8: set ranks_per_model to 1 or 2 or 4"):
        division("m", sparse, 8, cpu)
    with pytest.raises(UserError, match="is computed on cpu here and not on meta"):
        division("m", dense, 2, torch.device("meta"))
    dense.text_config.base_model_tp_plan = None
    with pytest.raises(UserError, match="can't divide a decoder of type llama over ranks"):
        division("m", dense, 2, cpu)
