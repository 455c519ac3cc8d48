import json
from pathlib import Path

import pytest

from mm1.evaluate.metrics.accuracy import accuracy, exact_match
from mm1.evaluate.metrics.vqa_accuracy import normalize_vqa, vqa_accuracy


def test_accuracy_ignores_case_articles_and_punctuation():
    assert accuracy("The Red.", ["red"]) == 1.0
    assert accuracy("red", ["blue", "a red"]) == 1.0
    assert accuracy("dark red", ["red"]) == 0.0


def test_exact_match_ignores_only_outer_space():
    assert exact_match(" Kreis\n", ["Kreis"]) == 1.0
    assert exact_match("kreis", ["Kreis"]) == 0.0


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The Dog", "dog"),
        ("Two dogs", "2 dogs"),
        ("none", "0"),
        ("1,000", "1000"),
        ("2.5", "2.5"),
        ("yes.", "yes"),
        ("dont", "don't"),
        ("black/white", "black white"),
        ("black , white", "black white"),
    ],
)
def test_vqa_normalisation(answer, normal):
    assert normalize_vqa(answer) == normal


@pytest.mark.parametrize(("people", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_vqa_accuracy_leaves_each_annotator_out_once(people, score):
    # Leaving out one of the n who gave it leaves n - 1: (n min((n-1)/3, 1) + (10-n) min(n/3, 1)) / 10.
    answers = ["red"] * people + [f"other {n}" for n in range(10 - people)]
    assert vqa_accuracy("Red", answers) == pytest.approx(score)


def test_vqa_accuracy_with_one_reference_is_a_match():
    assert vqa_accuracy("two", ["2"]) == 1.0
    assert vqa_accuracy("three", ["2"]) == 0.0


def test_vqa_is_openflamingos_copy_of_the_official_evaluation():
    """`golden/make_vqa.py` says how the values were made."""
    golden = json.loads((Path(__file__).parent / "golden" / "vqa.json").read_text(encoding="utf-8"))
    assert len(golden["normal"]) > 900
    assert [text for text, normal in golden["normal"] if normalize_vqa(text) != normal] == []
    scores = [vqa_accuracy(question["prediction"], question["people"]) for question in golden["questions"]]
    assert scores == pytest.approx([question["score"] for question in golden["questions"]], abs=1e-9)
