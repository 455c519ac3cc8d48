"""The report of a run: one HTML page that needs nothing but itself."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from mm1.files import write_text
from mm1.report import curves, words
from mm1.report.figures import FLOOR_DASHES, Figure, score_figure
from mm1.report.read_run import Prediction, Run, Score, mapping, number, read_run

PICTURES = 12  # held-out pictures shown for each task


@dataclass(frozen=True)
class Gallery:
    """The first pictures of one task with the model's words."""

    score: Score
    items: tuple[Prediction, ...]


def write_report(run_directory: Path) -> Path:
    """Write `report.html` into a run directory, from what is there so far.

    The page holds its pictures and figures in itself and asks nothing of the network. It can be written at any
    time, also while the run goes on: what isn't there yet is named on it.

    Args:
        run_directory: What `mm1 pretrain` and `mm1 evaluate` wrote.

    Returns:
        The path of the page.

    Raises:
        UserError: If there is no such directory.
    """
    run = read_run(Path(run_directory))
    path = run.directory / "report.html"
    write_text(path, render(run), shared=True)
    return path


def render(run: Run) -> str:
    """Return the page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mm1.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "compact": lambda value: words.compact(n) if (n := number(value)) is not None else "–",
        "count": lambda value: f"{n:,.0f}" if (n := number(value)) is not None else "–",
        "percent": lambda value: words.percent(n) if (n := number(value)) is not None else "–",
        "plain": lambda value: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
        "decimal": lambda value: f"{n:.2f}" if (n := number(value)) is not None else "–",
    }
    return environment.get_template("page.html").render(
        run=run,
        words=words,
        dashes=FLOOR_DASHES,
        headline=words.headline(run),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        facts=_facts(run),
        shape=_shape(run.model_config),
        kinds=_rows(run.plan, "kinds"),
        sources=_rows(run.plan, "sources"),
        fill=mapping(run.plan, "fill"),
        loss_figures=curves.loss_figures(run),
        training_score_figures=curves.training_score_figures(run),
        training_figures=curves.training_figures(run),
        score_figures=_score_figures(run),
        floor_names=_floor_names(run.scores),
        galleries=_galleries(run),
        prompt=_prompt(run),
        environment=_environment(run),
        commands=_commands(run),
        warnings=[*run.problems, *_doubts(run)],
    )


def _facts(run: Run) -> list[tuple[str, str]]:
    """Return the figures of the training in short: (what, how much)."""
    facts: list[tuple[str, str]] = []
    if run.parameters:
        facts.append(("parameters", words.compact(sum(run.parameters.values()))))
    if run.metrics:
        what = f"of {run.planned_steps:,} steps" if run.planned_steps and not run.finished else "steps"
        facts.append((what, f"{run.metrics.steps[-1]:,.0f}"))
        tokens, images, time = (run.metrics.last(name) for name in ("tokens", "images", "time"))
        if tokens is not None:
            facts.append(("tokens seen", words.compact(tokens)))
        if images is not None:
            facts.append(("pictures seen", words.compact(images)))
        if time is not None:
            facts.append(("wall time", words.duration(time)))
        if tokens and time:
            facts.append(("tokens/s", words.compact(tokens / time)))
    if (binding := number(mapping(run.plan, "fill").get("binding"))) is not None:
        facts.append(("packing fill", words.percent(binding)))
    return facts


def _shape(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the model's parts in a few words each, as far as its configuration tells."""
    vision, text = mapping(config, "vision_config"), mapping(config, "text_config")
    shape = {}
    if {"num_hidden_layers", "hidden_size", "image_size", "patch_size"} <= vision.keys():
        shape["vision"] = (
            f"{vision['num_hidden_layers']} layers × {vision['hidden_size']}, "
            f"{vision['image_size']} px in patches of {vision['patch_size']}"
        )
    if {"connector", "image_seq_length"} <= config.keys():
        kind = str(config["connector"]).replace("_", " ")
        shape["connector"] = f"{kind}, {config['image_seq_length']} tokens per picture"
    if {"num_hidden_layers", "hidden_size"} <= text.keys():
        shape["language_model"] = f"{text['num_hidden_layers']} layers × {text['hidden_size']}"
    if "vocab_size" in text:
        shape["embeddings"] = f"vocabulary of {text['vocab_size']}"
    return shape


def _rows(plan: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
    return {str(name): row for name, row in mapping(plan, key).items() if isinstance(row, Mapping)}


def _score_figures(run: Run) -> list[Figure]:
    figures = []
    floors = _floor_names(run.scores)
    for task, scores in run.by_task().items():
        svg = score_figure(scores, floors, percent=not words.is_cider(scores[0].metric))
        here = _floor_names(scores)
        legend = tuple((name, index % len(FLOOR_DASHES)) for index, name in enumerate(floors) if name in here)
        figures.append(Figure(f"{task} · {words.metric_name(scores[0].metric)}", svg, legend))
    return figures


def _floor_names(scores: list[Score]) -> list[str]:
    return list(dict.fromkeys(floor.name for score in scores for floor in score.floors))


def _galleries(run: Run) -> list[Gallery]:
    """Return one gallery a task, at its fewest shots that kept pictures; captions first."""
    galleries = []
    for scores in run.by_task().values():
        for score in scores:
            items = tuple(item for item in score.predictions if item.image)[:PICTURES]
            if items:
                galleries.append(Gallery(score, items))
                break
    return sorted(galleries, key=lambda g: not (words.is_cider(g.score.metric) or "caption" in g.score.task))


def _prompt(run: Run) -> Score | None:
    """Return the result whose prompt is shown: of those with most shots, where the shots helped most."""
    groups = [scores for scores in run.by_task().values() if scores[-1].example_prompt]
    most = max((scores[-1].shots for scores in groups), default=0)
    candidates = [scores for scores in groups if scores[-1].shots == most]
    best = max(candidates, key=lambda scores: scores[-1].score - scores[0].score, default=None)
    return best[-1] if best else None


def _environment(run: Run) -> dict[str, str]:
    """Return environment.json for reading: no nested parts, nothing empty."""
    shown = {}
    for key, value in run.environment.items():
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        elif isinstance(value, float):
            value = f"{value:.4g}"
        if not isinstance(value, Mapping) and value not in (None, ""):
            shown[str(key).replace("_", " ")] = str(value)
    return shown


def _commands(run: Run) -> list[tuple[str, str]]:
    """Return the commands that repeat the run: (command, what it does)."""
    here = Path.cwd()
    directory = run.directory.resolve()
    # Where the run lies on this machine is nobody else's business.
    shown = directory.relative_to(here) if directory.is_relative_to(here) else Path("runs") / directory.name
    recipe = shlex.quote(str(shown / "recipe.yaml"))
    again = shlex.quote(f"{shown}-again")
    commands = []
    if commit := run.environment.get("commit"):
        commit, plus, _ = str(commit).partition("+")
        but = ", but for changes that were not committed" if plus else ""
        commands.append((f"git checkout {shlex.quote(commit)}", f"the code as it was{but}"))
    commands += [(f"mm1 data build {shlex.quote(corpus)}", "the data") for corpus in _corpora(run)]
    commands.append((f"mm1 pretrain {recipe} --to {again}", "the same training"))
    chosen = mapping(run.recipe, "evaluate").get("shots")
    counts = ",".join(str(count) for count in chosen) if isinstance(chosen, list) and chosen else "0,4,8"
    commands.append((f"mm1 evaluate {again} --shots {shlex.quote(counts)}", "the same scores"))
    commands.append((f"mm1 report {again}", "a page like this one"))
    width = max(len(command) for command, _ in commands)
    return [(command.ljust(width), does) for command, does in commands]


def _corpora(run: Run) -> list[str]:
    """Return the names of the recipe's corpora (not of those given by path), each once."""
    names: dict[str, None] = {}
    kinds = mapping(mapping(run.recipe, "data"), "mixture").values()
    for kind in kinds:
        sources = kind.get("sources") if isinstance(kind, Mapping) else None
        for source in sources if isinstance(sources, list) else []:
            corpus = source.get("corpus") if isinstance(source, Mapping) else None
            if isinstance(corpus, str) and corpus.count("/") == 1 and not corpus.startswith(("/", ".")):
                names[corpus.partition("/")[0]] = None
    return list(names)


def _doubts(run: Run) -> list[str]:
    """Return sentences about what makes the run's figures doubtful."""
    doubts = []
    if run.metrics and "loss" in run.metrics.columns:
        missing = int(np.sum(~np.isfinite(run.metrics.columns["loss"])))
        if missing:
            doubts.append(f"The loss is not a finite number at {missing} of {len(run.metrics.steps)} logged steps.")
    doubts += curves.training_doubts(run)
    for score in run.scores:
        if score.errors:
            doubts.append(f"{score.task}, {words.shots(score.shots)}: {score.errors} items failed and count as wrong.")
    return doubts
