"""Numbers and results as text."""

from __future__ import annotations

import re

from mm1.report.read_run import Floor, Prediction, Run, Score


def compact(value: float) -> str:
    """Return a count with three significant digits: `985`, `21,000`, `2.71M`, `1.2B`."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{unit}"
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Return a time in its two largest units: `48 s`, `6 min 40 s`, `3 h 5 min`, `2 d 4 h`."""
    whole = round(seconds)
    for size, unit, below, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def percent(share: float, digits: int = 1) -> str:
    """Return a share as `97.4 %`, with a no-break space."""
    return f"{100 * share:.{digits}f}\u00a0%"


def is_cider(metric: str) -> bool:
    """Return whether a metric is CIDEr, which is not a share and is usually written times 100."""
    return "cider" in metric.lower()


def metric_name(metric: str) -> str:
    """Return a metric's name for display: `CIDEr`, `exact match`."""
    return "CIDEr" if metric.lower() == "cider" else metric.replace("_", " ")


def points(value: float, metric: str) -> str:
    """Return a score for display: `83.1 %`, or `112.4` for CIDEr."""
    return f"{100 * value:.1f}" if is_cider(metric) else percent(value)


def highest_floor(score: Score) -> Floor | None:
    """Return the floor that is hardest to beat."""
    return max(score.floors, key=lambda floor: floor.score, default=None)


def is_right(item: Prediction, metric: str) -> bool:
    """Return whether the model's answer counts as right.

    If the item's score is a share, it must be at least a half; a caption must equal a reference.
    """
    if item.score is not None and not is_cider(metric):
        return item.score >= 0.5
    return equals_reference(item)


def equals_reference(item: Prediction) -> bool:
    """Return whether the model's answer has the words of a reference, apart from case, spacing and punctuation."""
    return words(item.prediction) in [words(answer) for answer in item.answers]


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return re.findall(r"\w+", text.casefold())


def marked(item: Prediction) -> list[tuple[str, bool]]:
    """Split the model's answer into words and spaces, and return for each whether a reference has it."""
    known = {word for answer in item.answers for word in words(answer)}
    return [
        (piece, all(word in known for word in words(piece))) for piece in re.split(r"(\s+)", item.prediction) if piece
    ]


def question(prompt: str) -> str:
    """Return the text after the last picture of a prompt."""
    return prompt.rpartition("<image>")[2].strip()


def shots(count: int) -> str:
    """Return `0 shots`, `1 shot`, `8 shots`."""
    return f"{count} shot{'' if count == 1 else 's'}"


def headline(run: Run) -> str:
    """Return one sentence about the run with its main figures."""
    size = sum(run.parameters.values())
    model = f"A model of {compact(size)} parameters" if size else "The model"
    if run.scores:
        return f"{model}{_trained(run)} reaches {_results(run)}."
    if run.metrics is None:
        return f"{model} is being prepared; no training step is logged yet."
    step, planned = run.metrics.steps[-1], run.planned_steps
    time, loss = run.metrics.last("time"), run.metrics.last("loss")
    at_loss = f" at loss {loss:.2f}" if loss is not None else ""
    if run.finished:
        took = f" after {duration(time)}" if time else ""
        return f"{model} has finished training{took}{at_loss} and is not scored yet."
    of = f" of {planned:,} ({percent(step / planned, 0)})" if planned else ""
    took = f", {duration(time)} into its training" if time else ""
    return f"{model} is at step {step:,.0f}{of}{took},{at_loss}.".replace(",.", ".")


def _trained(run: Run) -> str:
    if run.metrics is None:
        return ""
    if not run.finished:
        return f" at training step {run.metrics.steps[-1]:,.0f}"
    time = run.metrics.last("time")
    return f", trained for {duration(time)}," if time else ""


def _results(run: Run) -> str:
    best = [max(scores, key=lambda score: score.score) for scores in run.by_task().values()]
    results = []
    for score in best:
        floor = highest_floor(score)
        comparison = f"; floor {points(floor.score, score.metric)}" if floor else ""
        name = "CIDEr " if is_cider(score.metric) else ""
        results.append(f"{name}{points(score.score, score.metric)} on {score.task} ({shots(score.shots)}{comparison})")
    return ", ".join(results[:-1]) + (" and " if len(results) > 1 else "") + results[-1]
