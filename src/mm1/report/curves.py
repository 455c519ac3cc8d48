"""The curves of a training: losses, scores, speed, gradients, router load; and warnings about it."""

from __future__ import annotations

from mm1.report.figures import Figure, curve_figure
from mm1.report.read_run import Metrics, Run

_SPEED = {
    "tokens_per_second": ("tokens/s", 1),
    "images_per_second": ("images/s", 1),
    "mfu": ("MFU, %", 100),
    "data_wait": ("data wait, %", 100),
    "learning_rate": ("learning rate", 1),
    "grad_norm": ("gradient norm", 1),
}
"""Column of the log -> title and factor."""
_PARTS = {"grad_norm/": "gradient norm: ", "router/": "router: "}
"""Prefix of a family of columns -> prefix of their titles."""
_COUNTED = {
    "bad_steps": "steps were skipped, since their gradients were infinite or undefined",
    "loss_spikes": "steps were loss spikes (seven standard deviations above the mean of the thousand before)",
    "bad_images": "pictures could not be read and were left out",
}


def loss_figures(run: Run) -> list[Figure]:
    """Return the figures of the loss: over all kinds of documents, and for each kind."""
    if run.metrics is None:
        return []
    steps, last = run.metrics.steps, _last_step(run, run.metrics)
    return [Figure(name, curve_figure(steps, loss, last, "loss")) for name, loss in run.metrics.losses().items()]


def training_score_figures(run: Run) -> list[Figure]:
    """Return one figure for each task and number of shots scored during training."""
    if run.metrics is None:
        return []
    steps, last = run.metrics.steps, _last_step(run, run.metrics)
    return [
        Figure(name.removeprefix("score/").replace("/", ", "), curve_figure(steps, 100 * values, last, name, each=True))
        for name, values in run.metrics.columns.items()
        if name.startswith("score/")
    ]


def training_figures(run: Run) -> list[Figure]:
    """Return the figures of speed, gradients and router load, for the columns that the log has."""
    if run.metrics is None:
        return []
    columns = run.metrics.columns
    titles = {name: title for name, title in _SPEED.items() if name in columns}
    for name in columns:
        for prefix, title in _PARTS.items():
            if name.startswith(prefix):
                titles[name] = title + name.removeprefix(prefix).replace("_", " "), 1
    steps, last = run.metrics.steps, _last_step(run, run.metrics)
    return [
        Figure(title, curve_figure(steps, factor * columns[name], last, title))
        for name, (title, factor) in titles.items()
        if not name.startswith("router/load/")  # there may be 64; the largest and the smallest load are enough
    ]


def training_warnings(run: Run) -> list[str]:
    """Return a sentence for every type of fault that the log counts."""
    if run.metrics is None:
        return []
    counts = {name: run.metrics.last(name) for name in _COUNTED}
    return [f"{count:,.0f} {_COUNTED[name]}." for name, count in counts.items() if count]


def _last_step(run: Run, metrics: Metrics) -> float:
    return max(float(metrics.steps[-1]), float(run.planned_steps or 0))
