"""The demo: corpora, encoder, training, scores and report, one after another, each kept if it is there already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mm1.corpora import DEMO_CORPORA, build_corpus
from mm1.encoder.evaluate import Result, score_encoder
from mm1.encoder.pretrain import pretrain_encoder
from mm1.evaluate.during import scorer_during_training
from mm1.evaluate.run import evaluate_run
from mm1.evaluate.score_table import score_table
from mm1.progress import console
from mm1.recipe import EncoderRecipe, load_recipe
from mm1.report import write_report
from mm1.train.pretrain import pretrain

DEMO_ENCODER: list[str] = []
"""Changes to the packaged recipe `clip-demo`."""


def run_demo(directory: Path, overrides: Sequence[str] = ()) -> Path:
    """Run the demo, or go on with it where it was stopped.

    Args:
        directory: The run's. The encoder's run is `clip-demo` beside it.
        overrides: Changes to the packaged recipe `demo`, as in `train.steps=100`. With a `model.vision.from` among
            them no encoder is trained.

    Returns:
        The report.
    """
    encoder = directory.parent / "clip-demo"
    recipe = load_recipe("demo", [f"model.vision.from={encoder}", *overrides])
    console.rule("1/5 corpora", align="left")
    for name, options in DEMO_CORPORA.items():
        info = build_corpus(name, **options)
        splits = ", ".join(f"{split} {counts['documents']:,}" for split, counts in info["splits"].items())
        console.print(f"{name}: {splits} documents")
    console.rule("2/5 image encoder", align="left")
    if recipe.model.vision.from_ == str(encoder):
        pretrain_encoder(load_recipe("clip-demo", DEMO_ENCODER, schema=EncoderRecipe), encoder)
        for line in _encoder_scores(encoder):
            if line["measure"] == "image to text R@1":
                console.print(
                    f"{line['corpus']}: {line['score']:.1%} of {line['items']:,} held-out pictures find their caption "
                    f"first (chance {line['chance']:.1%})"
                )
    console.rule("3/5 pre-training", align="left")
    pretrain(recipe, directory, scorer_during_training(recipe.evaluate))
    console.rule("4/5 few-shot evaluation", align="left")
    results = evaluate_run(directory)
    console.print(score_table(results))
    console.rule("5/5 report", align="left")
    return write_report(directory)


def _encoder_scores(encoder: Path) -> list[Result]:
    file = encoder / "scores" / "encoder.json"
    scores: list[Result] = json.loads(file.read_text()) if file.is_file() else score_encoder(encoder)
    return scores
