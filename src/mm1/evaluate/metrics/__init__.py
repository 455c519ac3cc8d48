"""Metrics by name. A new metric is one file here and one line in `METRICS`."""

from mm1.evaluate.metrics.accuracy import ACCURACY, EXACT_MATCH
from mm1.evaluate.metrics.anls import ANLS
from mm1.evaluate.metrics.bleu import BLEU
from mm1.evaluate.metrics.cider import CIDER
from mm1.evaluate.metrics.mathvista import MATHVISTA
from mm1.evaluate.metrics.metric import Metric
from mm1.evaluate.metrics.multiple_choice import MULTIPLE_CHOICE
from mm1.evaluate.metrics.relaxed_accuracy import RELAXED_ACCURACY
from mm1.evaluate.metrics.rouge import ROUGE_L
from mm1.evaluate.metrics.vqa_accuracy import VQA_ACCURACY

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        ACCURACY,
        EXACT_MATCH,
        VQA_ACCURACY,
        CIDER,
        *BLEU,
        ROUGE_L,
        ANLS,
        RELAXED_ACCURACY,
        MULTIPLE_CHOICE,
        MATHVISTA,
    )
}

__all__ = ["METRICS", "Metric"]
