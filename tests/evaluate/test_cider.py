import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm1.evaluate.metrics.cider import cider_d

WORDS = st.sampled_from(["a", "red", "blue", "circle", "square", "dog", "two", "small"])
CAPTION = st.lists(WORDS, min_size=1, max_size=9).map(" ".join)


def slow_cider_d(predictions, references):
    """The paper's formula over dense vectors of all n-grams that occur, one order at a time."""
    scores = np.zeros(len(predictions))
    items = len(references)
    for order in range(1, 5):

        def counts(caption, order=order):
            words = caption.split()
            return [tuple(words[i : i + order]) for i in range(len(words) - order + 1)]

        everything = [*predictions, *(r for several in references for r in several)]
        vocabulary = sorted({gram for caption in everything for gram in counts(caption)})
        documents = np.array([sum(any(g in counts(r) for r in several) for several in references) for g in vocabulary])
        idf = np.log(items) - np.log(np.maximum(1, documents))

        def vector(caption, vocabulary=vocabulary, idf=idf, counts=counts):
            found = counts(caption)
            return np.array([found.count(gram) for gram in vocabulary]) * idf

        for i, (prediction, several) in enumerate(zip(predictions, references, strict=True)):
            for reference in several:
                c, r = vector(prediction), vector(reference)
                norm = np.linalg.norm(c) * np.linalg.norm(r)
                bigrams = max(0, len(prediction.split()) - 1) - max(0, len(reference.split()) - 1)
                if norm > 0:
                    cosine = np.minimum(c, r) @ r / norm
                    scores[i] += cosine * math.exp(-(bigrams**2) / 72) / 4 / len(several) * 10
    return scores


@settings(max_examples=60)
@given(st.lists(st.tuples(CAPTION, st.lists(CAPTION, min_size=1, max_size=3)), min_size=1, max_size=6))
def test_equals_the_formula(items):
    predictions = [prediction for prediction, _ in items]
    references = [several for _, several in items]
    assert cider_d(predictions, references)[:, 0] == pytest.approx(slow_cider_d(predictions, references), abs=1e-9)


def test_by_hand():
    # Two items with no word in common: every n-gram weighs ln 2, so a perfect caption of four words has cosine 1
    # in each order; the other caption shares "a dog" of "a dog runs": unigrams 2/(sqrt 2 sqrt 3), bigrams
    # 1/sqrt 2, and none above. Lengths differ by one: exp(-1/72).
    scores = cider_d(["one two three four", "a dog"], [["one two three four"], ["a dog runs"]])[:, 0]
    expected = (2 / math.sqrt(6) + 1 / math.sqrt(2)) / 4 * math.exp(-1 / 72) * 10
    assert scores == pytest.approx([10.0, expected])


def test_one_item_says_nothing():
    assert cider_d(["a dog"], [["a dog"]])[0, 0] == 0.0


def test_empty_prediction_scores_zero():
    assert cider_d(["", "a dog"], [["a cat"], ["a dog"]])[0, 0] == 0.0


def test_case_and_punctuation_do_not_count():
    one = cider_d(["A dog, running.", "x"], [["a dog running"], ["a blue bird"]])
    assert one == pytest.approx(cider_d(["a dog running", "x"], [["a dog running"], ["a blue bird"]]))
