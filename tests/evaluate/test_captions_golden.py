"""Against the COCO caption evaluation itself; `golden/make_captions.py` says how the values were made."""

import json
from pathlib import Path

import numpy as np
import pytest

from mm1.evaluate.metrics import METRICS
from mm1.evaluate.metrics.tokens import caption_tokens


@pytest.fixture(scope="module", params=["captions", "openclipart"])
def golden(request):
    return json.loads((Path(__file__).parent / "golden" / f"{request.param}.json").read_text(encoding="utf-8"))


def statistics_of(name, golden):
    items = golden["items"]
    return METRICS[name].statistics([item["prediction"] for item in items], [item["references"] for item in items])


def test_tokens_are_the_java_tokenizers(golden):
    wrong = [(text, caption_tokens(text), words) for text, words in golden["tokens"] if caption_tokens(text) != words]
    assert not wrong


@pytest.mark.parametrize("name", ["cider", "rouge_l"])
def test_item_scores(golden, name):
    assert statistics_of(name, golden)[:, 0] == pytest.approx(golden[name], abs=1e-9)


def test_bleu(golden):
    statistics = statistics_of("bleu_1", golden)
    scores = [float(METRICS[f"bleu_{order}"].score(statistics)) for order in (1, 2, 3, 4)]
    assert scores == pytest.approx(golden["bleu"], abs=1e-9)


def test_bleu_of_resamples_is_the_bleu_of_each(golden):
    metric = METRICS["bleu_4"]
    statistics = statistics_of("bleu_4", golden)
    rows = np.random.default_rng(0).integers(0, len(statistics), size=(3, len(statistics)))
    together = metric.score(statistics[rows])
    assert together == pytest.approx([float(metric.score(statistics[row])) for row in rows])


@pytest.mark.parametrize("name", ["cider", "rouge_l", "bleu_4"])
def test_empty_prediction_is_no_error(name):
    metric = METRICS[name]
    assert metric.score(metric.statistics([""], [["a dog"]])) == pytest.approx(0.0, abs=1e-6)
