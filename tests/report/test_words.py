import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm1.report import words
from mm1.report.read_run import Prediction


def item(prediction: str, *answers: str, score: float | None = None) -> Prediction:
    return Prediction("x", "<image>", prediction, answers, score, None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (985, "985"),
        (64_500, "64,500"),
        (999_400, "999,400"),
        (999_600, "1M"),
        (2.714e6, "2.71M"),
        (3e9, "3B"),
    ],
)
def test_compact(value, text):
    assert words.compact(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (400, "6 min 40 s"),
        (3600, "1 h"),
        (11100, "3 h 5 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_duration(seconds, text):
    assert words.duration(seconds) == text


def test_points_of_shares_and_of_cider():
    assert words.points(0.8312, "accuracy") == "83.1\u00a0%"
    assert words.points(1.1242, "cider") == "112.4"


def test_right_by_the_score_of_the_item_or_by_the_words():
    assert words.is_right(item("red", "crimson", score=1.0), "accuracy")
    assert not words.is_right(item("red", "red", score=0.3), "vqa_accuracy")
    assert words.is_right(item("A red  circle.", "a red circle", score=3.2), "cider")
    assert not words.is_right(item("a red square", "a red circle", score=3.2), "cider")


def test_question_is_what_follows_the_last_picture():
    assert words.question("<image> yes\n<image> Question: what? Short answer:") == "Question: what? Short answer:"
    assert words.question("<image>") == ""


@given(st.text(), st.lists(st.text(), max_size=3))
def test_marking_keeps_every_character(prediction, answers):
    assert "".join(piece for piece, _ in words.marked(item(prediction, *answers))) == prediction


def test_marking_finds_the_words_that_no_answer_has():
    unknown = [piece for piece, known in words.marked(item("a Red hexagon.", "a red square")) if not known]
    assert unknown == ["hexagon."]
