import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm1.corpora import easy_vqa, scene
from mm1.evaluate.metrics import METRICS
from mm1.evaluate.metrics.accuracy import accuracy, exact_match, normalize_answer
from mm1.evaluate.metrics.vqa_accuracy import normalize_vqa, vqa_accuracy


def test_accuracy_ignores_case_articles_and_punctuation():
    assert accuracy("The Red.", ["red"]) == 1.0
    assert accuracy("red", ["blue", "a red"]) == 1.0
    assert accuracy("dark red", ["red"]) == 0.0


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        # What SQuAD's rule would make empty stays as it is.
        ("", "A", 0.0),
        ("", "", 0.0),
        ("the", "A", 0.0),
        ("?", "!", 0.0),
        ("A", "A", 1.0),
        ("a.", "A", 1.0),
        ("?", "?", 1.0),
        ("B", "A", 0.0),
        # An article stands before a word.
        ("vitamin A", "vitamin", 0.0),
        ("vitamin a", "Vitamin A", 1.0),
        ("A and B", "B", 0.0),
        ("the dog and a cat", "dog and cat", 1.0),
        ('"The dog"', "dog", 1.0),
        # Numbers keep what makes them another one.
        ("-5", "5", 0.0),
        ("-5", "-5.", 1.0),
        ("(-5)", "-5", 1.0),
        ("-$5", "$5", 0.0),
        ("1.5", "15", 0.0),
        (".5", "5", 0.0),
        ("1/2", "12", 0.0),
        ("10:30", "1030", 0.0),
        ("3-5", "35", 0.0),
        ("1,5", "15", 0.0),
        ("1e-5", "1e5", 0.0),
        ("1,000", "1000", 1.0),
        ("1,000,000.5", "1000000.5", 1.0),
        ("$1,000", "1000", 1.0),
        # As SQuAD's rule has it.
        ("The bus.", "bus", 1.0),
        ("U.S.", "us", 1.0),
        ("Covid-19", "covid19", 1.0),
        ("5%", "5", 1.0),
        ("it's", "its", 1.0),
    ],
)
def test_accuracy_makes_nothing_equal_by_accident(prediction, reference, score):
    assert accuracy(prediction, [reference]) == score
    assert accuracy(prediction, ["something else", reference]) == score


@given(st.floats(allow_nan=False, allow_infinity=False, width=16), st.floats(-2, 2, width=16))
def test_accuracy_tells_numbers_apart(one, other):
    assert accuracy(f"{one}", [f"{other}"]) == float(f"{one}" == f"{other}")


@given(st.text(), st.text())
def test_normalised_is_never_empty_and_stays_as_it_is(one, other):
    normal = normalize_answer(one)
    assert bool(normal) == bool(one.strip())
    assert accuracy(one, [one, other]) == float(bool(one.strip()))


@pytest.mark.parametrize(
    "name", ["accuracy", "exact_match", "relaxed_accuracy", "anls", "multiple_choice", "mathvista"]
)
@pytest.mark.parametrize("references", [("",), ("A",), ("!",), ("A", "the"), ("5", "")])
def test_an_empty_answer_is_never_right(name, references):
    """Except for VQA accuracy, which is the official evaluation's to the letter."""
    assert METRICS[name].measure(["", " \n"], [references] * 2, [(), ()]).tolist() == [[0.0], [0.0]]


def test_answers_of_the_packaged_tasks_of_accuracy_are_words():
    """Those that are numbers or letters belong to exact_match."""
    words = [*easy_vqa.COLORS, *easy_vqa.SHAPES, "yes", "no", *scene.NUMBERS, *scene.NOUNS, *scene.PLURALS.values()]
    for word in words:
        assert normalize_answer(word) == word
        assert len(word) > 1
        assert not any(character.isdigit() for character in word)


def test_exact_match_is_strict():
    assert exact_match("5", ["5"]) == 1.0
    for prediction, reference in (("5%", "5"), ("5.", "5"), ("-5", "5"), ("b", "B"), ("C++", "C"), ("", "")):
        assert exact_match(prediction, [reference]) == 0.0


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
