"""Against the COCO caption evaluation itself; `golden/make_captions.py` says how the values were made."""

import json
from pathlib import Path

import numpy as np
import pytest

from mm1.evaluate.metrics import METRICS
from mm1.evaluate.metrics.tokens import caption_tokens

GOLDEN = json.loads((Path(__file__).parent / "golden" / "captions.json").read_text(encoding="utf-8"))
PREDICTIONS = [item["prediction"] for item in GOLDEN["items"]]
REFERENCES = [item["references"] for item in GOLDEN["items"]]


def test_tokens_are_the_java_tokenizers():
    wrong = [(text, caption_tokens(text), words) for text, words in GOLDEN["tokens"] if caption_tokens(text) != words]
    assert not wrong


@pytest.mark.parametrize("name", ["cider", "rouge_l"])
def test_item_scores(name):
    assert METRICS[name].statistics(PREDICTIONS, REFERENCES)[:, 0] == pytest.approx(GOLDEN[name], abs=1e-9)


def test_bleu():
    statistics = METRICS["bleu_1"].statistics(PREDICTIONS, REFERENCES)
    scores = [float(METRICS[f"bleu_{order}"].score(statistics)) for order in (1, 2, 3, 4)]
    assert scores == pytest.approx(GOLDEN["bleu"], abs=1e-9)


def test_bleu_of_resamples_is_the_bleu_of_each():
    metric = METRICS["bleu_4"]
    statistics = metric.statistics(PREDICTIONS, REFERENCES)
    rows = np.random.default_rng(0).integers(0, len(statistics), size=(3, len(statistics)))
    together = metric.score(statistics[rows])
    assert together == pytest.approx([float(metric.score(statistics[row])) for row in rows])


@pytest.mark.parametrize("name", ["cider", "rouge_l", "bleu_4"])
def test_empty_prediction_is_no_error(name):
    metric = METRICS[name]
    assert metric.score(metric.statistics([""], [["a dog"]])) == pytest.approx(0.0, abs=1e-6)
