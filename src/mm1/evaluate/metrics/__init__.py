"""Metrics by name. A new one is a file here and a line in `METRICS`."""

from mm1.evaluate.metrics.accuracy import ACCURACY, EXACT_MATCH
from mm1.evaluate.metrics.cider import CIDER
from mm1.evaluate.metrics.metric import Metric
from mm1.evaluate.metrics.vqa_accuracy import VQA_ACCURACY

METRICS: dict[str, Metric] = {metric.name: metric for metric in (ACCURACY, EXACT_MATCH, VQA_ACCURACY, CIDER)}

__all__ = ["METRICS", "Metric"]
