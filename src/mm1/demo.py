"""The demo: corpora, encoder, training, scores and report in turn; a step whose output exists is skipped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mm1.corpora import build_corpus
from mm1.devices import choose_device
from mm1.encoder.evaluate import Result, score_encoder
from mm1.encoder.pretrain import pretrain_encoder
from mm1.errors import UserError
from mm1.evaluate.during import scorer_during_training
from mm1.evaluate.run import evaluate_run
from mm1.evaluate.score_table import score_table
from mm1.nearest import did_you_mean
from mm1.places import data_directory
from mm1.progress import console
from mm1.recipe import EncoderRecipe, Recipe, load_recipe, parse_setting
from mm1.report import write_report
from mm1.scaling.duration import Work, in_words, seconds_of_pass
from mm1.train.capabilities import autocast_dtype
from mm1.train.changes import latest_step
from mm1.train.pretrain import pretrain

CORPORA = ("scenes", "easy-vqa", "openmoji", "pages", "text")

QUICK = ("train.steps=80", "train.warmup_steps=10", "evaluate.limit=100")
QUICK_ENCODER = ("train.steps=20", "train.warmup_steps=5")
"""What the quick tour changes in both recipes: a few minutes of work on two CPU cores, and weak scores."""

_ITEMS = 865
"""Most items of the demo's tasks, on average (1,500, 500 and 594)."""

_ENCODER, _CORPORA = "encoder.", "corpora."
"""Prefixes of the settings that belong to the encoder's recipe and to the corpora."""


def run_demo(directory: Path, settings: Sequence[str] = (), *, quick: bool = False) -> Path:
    """Run the demo, or resume it where it stopped.

    Args:
        directory: The run's directory. The encoder's run is `clip-demo` next to it, or `clip-demo-quick`.
        settings: Changes as `key=value`: to the packaged recipe `demo` (`train.steps=100`), to the encoder's recipe
            `clip-demo` (`encoder.train.steps=100`), to a corpus (`corpora.scenes.count=2000`). If they set
            `model.vision.from`, no encoder is trained.
        quick: Whether to train briefly (`QUICK`); the settings come after it.

    Returns:
        The report's path.

    Raises:
        UserError: If a setting is wrong or has no effect, or a step fails.
    """
    encoder = directory.parent / ("clip-demo-quick" if quick else "clip-demo")
    of_encoder = [setting.removeprefix(_ENCODER) for setting in settings if setting.startswith(_ENCODER)]
    of_corpora = [setting.removeprefix(_CORPORA) for setting in settings if setting.startswith(_CORPORA)]
    of_recipe = [setting for setting in settings if not setting.startswith((_ENCODER, _CORPORA))]
    recipe = load_recipe("demo", [f"model.vision.from={encoder}", *(QUICK if quick else ()), *of_recipe])
    encoder_recipe = load_recipe("clip-demo", [*(QUICK_ENCODER if quick else ()), *of_encoder], schema=EncoderRecipe)
    corpora = _corpus_options(of_corpora)
    trains_encoder = recipe.model.vision.from_ == str(encoder)
    if of_encoder and not trains_encoder:
        raise UserError(
            f"--set {_ENCODER}{of_encoder[0]}: it has no effect, since model.vision.from is set and no encoder is "
            "trained: leave one of the two out"
        )
    if quick:
        console.print("a quick tour: training is twenty times shorter than the demo's, so answers and scores are weak")
    if choose_device(recipe.train.device, "train.device").type == "cpu":
        work = remaining_work(recipe, directory, encoder_recipe, encoder if trains_encoder else None)
        dtype = autocast_dtype(recipe.train, torch.device("cpu"))
        time = in_words(work.seconds(seconds_of_pass(dtype)))
        console.print(f"this takes {time} on this machine, as busy as it is now; packages to download come on top")
    console.rule("1/5 corpora", align="left")
    for name, options in corpora.items():
        info = build_corpus(name, **options)
        splits = ", ".join(f"{split} {counts['documents']:,}" for split, counts in info["splits"].items())
        console.print(f"{name}: {splits} documents")
    console.rule("2/5 image encoder", align="left")
    if trains_encoder:
        pretrain_encoder(encoder_recipe, encoder)
        for line in _encoder_scores(encoder):
            if line["measure"] == "image to text R@1":
                console.print(
                    f"{line['corpus']}: {line['score']:.1%} of {line['items']:,} held-out pictures rank their own "
                    f"caption first (chance {line['chance']:.1%})"
                )
    console.rule("3/5 pre-training", align="left")
    pretrain(recipe, directory, scorer_during_training(recipe.evaluate))
    console.rule("4/5 few-shot evaluation", align="left")
    results = evaluate_run(directory)
    console.print(score_table(results))
    console.rule("5/5 report", align="left")
    return write_report(directory)


def remaining_work(recipe: Recipe, directory: Path, encoder_recipe: EncoderRecipe, encoder: Path | None) -> Work:
    """Return what is left to do of the demo.

    Args:
        recipe: The recipe of the model.
        directory: The run's directory.
        encoder_recipe: The recipe of the encoder.
        encoder: The encoder's run; None: no encoder is trained.
    """
    missing = [name for name in CORPORA if not (data_directory() / name / "corpus.json").is_file()]
    trained = (directory / "model" / "config.json").is_file()
    scoring = recipe.evaluate
    items = len(scoring.tasks) * len(scoring.shots) * min(scoring.limit or _ITEMS, _ITEMS)
    return Work(
        corpora=len(missing),
        encoder_steps=_steps_left(encoder, encoder_recipe.train.steps) if encoder else 0,
        steps=_steps_left(directory, recipe.train.steps),
        items=0 if trained and (directory / "scores").is_dir() else items,
    )


def _steps_left(run: Path, steps: int) -> int:
    return 0 if (run / "model" / "config.json").is_file() else steps - latest_step(run)


def _corpus_options(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the demo's corpora with their options, taken from settings `NAME.OPTION=VALUE`."""
    corpora: dict[str, dict[str, Any]] = {name: {} for name in CORPORA}
    for setting in settings:
        key, value = parse_setting(setting)
        name, _, option = key.partition(".")
        if name not in corpora:
            raise UserError(
                f"--set {_CORPORA}{setting}: the demo has no corpus '{name}': {did_you_mean(name, CORPORA)}"
            )
        corpora[name][option] = value
    return corpora


def _encoder_scores(encoder: Path) -> list[Result]:
    file = encoder / "scores" / "encoder.json"
    scores: list[Result] = json.loads(file.read_text()) if file.is_file() else score_encoder(encoder)
    return scores
