"""The paper's scores beside a run's, for the same tasks and numbers of shots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mm1.paper.published import Published, protocol_differences, published_scores, without_counterpart
from mm1.report.read_run import Score

PRE_TRAINED = ("mm1-3b", "mm1-7b", "mm1-30b")
FINE_TUNED = ("mm1-3b-chat", "mm1-7b-chat", "mm1-30b-chat")


@dataclass(frozen=True)
class BesidePaper:
    """The table.

    Attributes:
        models: The paper's models, one column each.
        rows: Our score, the published ones (None: not published), and what differs in the protocol.
        missing: A sentence on the tasks that have no counterpart, or None.
        source: Where the scores are published.
    """

    models: tuple[str, ...]
    rows: tuple[tuple[Score, tuple[Published | None, ...], str], ...]
    missing: str | None
    source: str


def beside_paper(scores: Sequence[Score]) -> BesidePaper | None:
    """Return the paper's scores for a run's; None if it has no scores.

    Runs that were asked in conversations stand beside the fine-tuned models, others beside the pre-trained ones.
    """
    if not scores:
        return None
    chat = any(score.protocol.get("prompt_style") == "chat" for score in scores)
    models = FINE_TUNED if chat else PRE_TRAINED
    published = [published_scores(model) for model in models]
    rows = []
    for score in scores:
        theirs = tuple(each.get((score.task, score.shots)) for each in published)
        if any(theirs):
            differs = protocol_differences(models[0], score.task, score.protocol, score.metric)
            rows.append((score, theirs, "; ".join(differs)))
    source = next((each.source for _, theirs, _ in rows for each in theirs if each), "")
    return BesidePaper(models, tuple(rows), without_counterpart(models[0], (score.task for score in scores)), source)
