"""The report of a run: one self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from mm1.files import write_text
from mm1.report import curves, words
from mm1.report.beside_paper import beside_paper
from mm1.report.figures import FLOOR_DASHES, Figure, score_figure
from mm1.report.read_run import Prediction, Run, Score, mapping, number, read_run
from mm1.report.repeat import repeat

PICTURES = 12  # held-out pictures shown for each task


@dataclass(frozen=True)
class Gallery:
    """The first pictures of one task with the model's answers."""

    score: Score
    items: tuple[Prediction, ...]


def write_report(run_directory: Path) -> Path:
    """Write `report.html` into a run's directory.

    The page contains its pictures and figures and doesn't use the network. It can be written at any time, also during
    training; it names the parts of the run that don't exist yet.

    Args:
        run_directory: A directory written by `mm1 pretrain` and `mm1 evaluate`.

    Returns:
        The path of the page.

    Raises:
        UserError: If the directory doesn't exist.
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
        figures=_figures(run),
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
        repeat=repeat(run),
        beside_paper=beside_paper(run.scores),
        warnings=[*run.problems, *_warnings(run)],
    )


def _figures(run: Run) -> list[tuple[str, str]]:
    """Return the main figures of the training: (name, value)."""
    figures: list[tuple[str, str]] = []
    if run.parameters:
        figures.append(("parameters", words.compact(sum(run.parameters.values()))))
    if run.metrics:
        name = f"of {run.planned_steps:,} steps" if run.planned_steps and not run.finished else "steps"
        figures.append((name, f"{run.metrics.steps[-1]:,.0f}"))
        tokens, images, time = (run.metrics.last(name) for name in ("tokens", "images", "time"))
        if tokens is not None:
            figures.append(("tokens seen", words.compact(tokens)))
        if images is not None:
            figures.append(("images seen", words.compact(images)))
        if time is not None:
            figures.append(("wall time", words.duration(time)))
        if tokens and time:
            figures.append(("tokens/s", words.compact(tokens / time)))
    if (binding := number(mapping(run.plan, "fill").get("binding"))) is not None:
        figures.append(("packing fill", words.percent(binding)))
    return figures


def _shape(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a short text for each part of the model, from its configuration."""
    vision, text = mapping(config, "vision_config"), mapping(config, "text_config")
    shape = {}
    if backbone := mapping(vision, "backbone_config"):
        shape["vision"] = (
            f"{backbone.get('model_type')}, {vision.get('hidden_size')} channels, {vision.get('image_size')} px with "
            f"a stride of {vision.get('patch_size')}"
        )
    elif {"num_hidden_layers", "hidden_size", "image_size", "patch_size"} <= vision.keys():
        shape["vision"] = (
            f"{vision['num_hidden_layers']} layers × {vision['hidden_size']}, "
            f"{vision['image_size']} px in patches of {vision['patch_size']}"
        )
    if {"connector", "image_seq_length"} <= config.keys():
        kind = str(config["connector"]).replace("_", " ")
        shape["connector"] = f"{kind}, {config['image_seq_length']} tokens per image"
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
        own = _floor_names(scores)
        legend = tuple((name, index % len(FLOOR_DASHES)) for index, name in enumerate(floors) if name in own)
        figures.append(Figure(f"{task} · {words.metric_name(scores[0].metric)}", svg, legend))
    return figures


def _floor_names(scores: list[Score]) -> list[str]:
    return list(dict.fromkeys(floor.name for score in scores for floor in score.floors))


def _galleries(run: Run) -> list[Gallery]:
    """Return one gallery per task, at the fewest shots whose result has pictures; captions come first."""
    galleries = []
    for scores in run.by_task().values():
        for score in scores:
            items = tuple(item for item in score.predictions if item.image)[:PICTURES]
            if items:
                galleries.append(Gallery(score, items))
                break
    return sorted(galleries, key=lambda g: not (words.is_cider(g.score.metric) or "caption" in g.score.task))


def _prompt(run: Run) -> Score | None:
    """Return the result whose prompt the page shows: the one with most shots that gained most from them."""
    groups = [scores for scores in run.by_task().values() if scores[-1].example_prompt]
    most = max((scores[-1].shots for scores in groups), default=0)
    candidates = [scores for scores in groups if scores[-1].shots == most]
    best = max(candidates, key=lambda scores: scores[-1].score - scores[0].score, default=None)
    return best[-1] if best else None


def _environment(run: Run) -> dict[str, str]:
    """Return environment.json for display, without nested and empty values."""
    shown = {}
    for key, value in run.environment.items():
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        elif isinstance(value, float):
            value = f"{value:.4g}"
        if not isinstance(value, Mapping) and value not in (None, ""):
            shown[str(key).replace("_", " ")] = str(value)
    return shown


def _warnings(run: Run) -> list[str]:
    """Return sentences about faults that make the run's figures doubtful."""
    warnings = []
    if run.metrics and "loss" in run.metrics.columns:
        missing = int(np.sum(~np.isfinite(run.metrics.columns["loss"])))
        if missing:
            warnings.append(f"The loss is not a finite number at {missing} of {len(run.metrics.steps)} logged steps.")
    warnings += curves.training_warnings(run)
    for score in run.scores:
        if score.errors:
            warnings.append(
                f"{score.task}, {words.shots(score.shots)}: {score.errors} items failed and count as wrong."
            )
    return warnings
