"""The demo: corpora, training, scores and report, one after another, each kept if it is there already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm1.data.corpora import DEMO_CORPORA, build_corpus
from mm1.evaluate.during import scorer_during_training
from mm1.evaluate.run import evaluate_run
from mm1.evaluate.table import score_table
from mm1.progress import console
from mm1.recipe import load_recipe
from mm1.report import write_report
from mm1.train.pretrain import pretrain


def run_demo(directory: Path, overrides: Sequence[str] = ()) -> Path:
    """Run the demo, or go on with it where it was stopped.

    Args:
        directory: The run's.
        overrides: Changes to the packaged recipe `demo`, as in `train.steps=100`.

    Returns:
        The report.
    """
    recipe = load_recipe("demo", overrides)
    console.rule("1/4 corpora", align="left")
    for name, options in DEMO_CORPORA.items():
        info = build_corpus(name, **options)
        splits = ", ".join(f"{split} {counts['documents']:,}" for split, counts in info["splits"].items())
        console.print(f"{name}: {splits} documents")
    console.rule("2/4 pre-training", align="left")
    pretrain(recipe, directory, scorer_during_training(recipe.evaluate))
    console.rule("3/4 few-shot evaluation", align="left")
    results = evaluate_run(directory)
    console.print(score_table(results))
    console.rule("4/4 report", align="left")
    return write_report(directory)
