"""What the name of a model stands for: the same everywhere, in commands and in recipes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mm1.errors import UserError
from mm1.evaluate.caption import caption_image
from mm1.model.resolve import resolve_model, resolve_models
from mm1.places import parse_model_name
from mm1.recipe import EncoderRecipe, Recipe, load_recipe
from mm1.train.pretrain import pretrain
from tests.conftest import breaking_at, png

END = "--end--"
CAPTION_EACH = f"""
import sys
from mm1.cli import main
for name in sys.argv[1:]:
    sys.argv = ["mm1", "caption", name, "red.png"]
    try:
        main()
    except SystemExit as end:
        print("{END}", end.code, "{END}", sep="", end="")
"""
"""The command for one name after the other, in one process: each start takes seconds."""


@pytest.mark.parametrize(
    ("name", "kind", "place", "version"),
    [
        ("there", "folder", "there", None),
        ("there@12", "step", "there", "12"),
        ("there@step-000012", "step", "there", "12"),
        ("runs/new", "folder", "runs/new", None),
        ("runs/new@750", "step", "runs/new", "750"),
        ("./a/b", "folder", "./a/b", None),
        ("/a", "folder", "/a", None),
        ("a/b/c", "folder", "a/b/c", None),
        ("there/below", "folder", "there/below", None),
        ("owner/name", "hub", "owner/name", None),
        ("owner/name@main", "hub", "owner/name", "main"),
        ("owner/name@750", "hub", "owner/name", "750"),
        ("gpt2", "hub", "gpt2", None),
        ("hub:there/name", "hub", "there/name", None),
        ("hub:owner/name@v1.0", "hub", "owner/name", "v1.0"),
        ("smollm2", "packaged", "smollm2", None),
        ("odd@name", "folder", "odd@name", None),
    ],
)
def test_names(
    name: str, kind: str, place: str, version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "odd@name").mkdir()
    found = parse_model_name(name)
    assert (found.kind, found.place, found.version) == (kind, place, version)


def test_a_folder_comes_before_a_packaged_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").mkdir()
    assert parse_model_name("smollm2").kind == "folder"
    with pytest.raises(UserError, match="'last' isn't a step: write the number of a checkpoint, as in smollm2@750"):
        parse_model_name("smollm2@last")


@pytest.fixture
def run(recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained run `runs/tiny` of the current directory, with checkpoints of the steps 8 and 12."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "red.png").write_bytes(png("red"))
    pretrain(load_recipe(str(recipe_file)), Path("runs/tiny"))
    return Path("runs/tiny")


def put_on_hub(folder: Path, cache: Path, name: str, revision: str) -> None:
    """Put a folder into a cache as the Hub's client keeps it."""
    repository = cache / f"models--{name.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    for reference in ("main", revision):
        (repository / "refs" / reference).write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)


def test_every_name_of_one_model_gives_the_same_words(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(run / "model", "copy")
    words = caption_image("runs/tiny", Path("red.png"))
    for name in ("copy", "runs/tiny/model", "runs/tiny@12", "runs/tiny@step-000012"):
        assert caption_image(name, Path("red.png")) == words, name
    step, last = (load_file(Path(f"runs/tiny/models/step-000012/{n}")) for n in 2 * ["model.safetensors"])
    final = load_file(run / "model" / "model.safetensors")
    assert step.keys() == final.keys()
    assert all(torch.equal(final[name], tensor) for name, tensor in last.items())
    earlier = load_file(resolve_model("runs/tiny@8") / "model.safetensors")
    assert not all(torch.equal(final[name], tensor) for name, tensor in earlier.items())


def test_a_hub_id_with_a_revision_works_in_commands(run: Path, tmp_path: Path) -> None:
    put_on_hub(run / "model", tmp_path / "hub", "owner/name", "v1")
    names = ("runs/tiny", "owner/name@v1", "hub:owner/name", "owner/name@v2")
    done = subprocess.run(
        [sys.executable, "-c", CAPTION_EACH, *names],
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    words = dict(zip(names[:3], done.stdout.split(END)[:6:2], strict=True))
    assert words["runs/tiny"] == words["owner/name@v1"] == words["hub:owner/name"]
    assert words["runs/tiny"].strip()
    assert done.stdout.endswith(f"{END}2{END}")
    assert "error: 'owner/name@v2' is no model: no such folder, and not on the Hub" in done.stderr


def test_every_key_of_a_recipe_takes_every_name(run: Path, recipe_file: Path, data: Path) -> None:
    for name in ("runs/tiny", "runs/tiny/model", "runs/tiny@8"):
        recipe = load_recipe(str(recipe_file)).model_dump(by_alias=True)
        recipe["model"] = {"from": name}
        resolved = resolve_models(Recipe.model_validate(recipe))
        assert Path(str(resolved.model.from_)).is_dir()
        assert resolved.data == Recipe.model_validate(recipe).data
    for part in ("vision", "language_model"):
        changes = [f"model.{part}.from=runs/tiny"]
        section = getattr(resolve_models(load_recipe(str(recipe_file), changes)).model, part)
        assert section.from_ == "runs/tiny/model"
        with pytest.raises(UserError, match=rf"model\.{part}\.from: 'runs/nowhere' is no model: no such folder"):
            resolve_models(load_recipe(str(recipe_file), [f"model.{part}.from=runs/nowhere"]))
    encoder = load_recipe("clip-demo", ["model.from=runs/tiny"], schema=EncoderRecipe)
    assert resolve_models(encoder).model.from_ == "runs/tiny/model"


def test_a_run_that_has_not_ended_names_its_steps(
    recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with breaking_at(9):
        pretrain(load_recipe(str(recipe_file)), Path("runs/tiny"))
    with pytest.raises(UserError, match="'runs/tiny' is a run that has not ended: .* such as runs/tiny@8"):
        resolve_model("runs/tiny")
    assert (resolve_model("runs/tiny@8") / "model.safetensors").is_file()
    with pytest.raises(UserError, match="runs/tiny@9: the run has no checkpoint of step 9: there are 4, 8"):
        resolve_model("runs/tiny@9")
    Path("empty").mkdir()
    with pytest.raises(UserError, match="'empty' is no model \\(no config.json\\)"):
        resolve_model("empty")
    with pytest.raises(UserError, match="empty is no run \\(no recipe.yaml\\): only runs have steps"):
        resolve_model("empty@3")


def test_training_goes_on_from_a_step_of_another_run(run: Path, recipe_file: Path, data: Path) -> None:
    content = yaml.safe_load(recipe_file.read_text())
    content["model"] = {"from": "runs/tiny@8"}
    recipe_file.write_text(yaml.safe_dump(content))
    changes = ["train.steps=1", "train.warmup_steps=0", "train.learning_rate=1e-30", "train.weight_decay=0"]
    model = pretrain(load_recipe(str(recipe_file), changes), Path("runs/more"))
    began = load_file(resolve_model("runs/tiny@8") / "model.safetensors")
    for name, tensor in load_file(model / "model.safetensors").items():
        torch.testing.assert_close(tensor, began[name], atol=1e-6, rtol=1e-5)
