"""`mm1 demo`: everything, small."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from mm1.progress import console


def demo(
    run: Annotated[
        Path | None,
        typer.Option("--to", help="Directory of the run. Default: runs/demo, or runs/demo-quick with --quick."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a key of the recipe demo, as in train.steps=100. encoder.KEY=VALUE changes the recipe of its "
            "image encoder, clip-demo; corpora.NAME.OPTION=VALUE changes a corpus, as in corpora.scenes.count=2000. "
            "May be repeated. Default: no change.",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A short tour: trained briefly, so answers and scores are weak. Default: the whole demo."
        ),
    ] = False,
) -> None:
    """Build corpora, train a small MM1 on them, score it and write a report; it says at the start how long it takes.

    Results that exist already are kept. If the demo was stopped, the same command resumes it.
    """
    from mm1.demo import run_demo

    report = run_demo(run or Path("runs/demo-quick" if quick else "runs/demo"), set_ or [], quick=quick)
    console.print(Text("the report:", "bold"), report.resolve().as_uri())
