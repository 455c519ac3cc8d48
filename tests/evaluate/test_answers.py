import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm1.evaluate.metrics.anls import anls, edit_distance
from mm1.evaluate.metrics.relaxed_accuracy import relaxed_accuracy

WORD = st.text("abc ", max_size=6)


def recursive_distance(one: str, other: str) -> int:
    if not one or not other:
        return len(one) + len(other)
    return min(
        recursive_distance(one[1:], other) + 1,
        recursive_distance(one, other[1:]) + 1,
        recursive_distance(one[1:], other[1:]) + (one[0] != other[0]),
    )


@given(WORD, WORD)
def test_edit_distance_is_the_definition(one, other):
    assert edit_distance(one, other) == recursive_distance(one, other)


@pytest.mark.parametrize(
    ("given_answer", "truths", "score"),
    [
        ("Hello", ["hello"], 1.0),
        ("hell", ["hello"], 0.8),
        ("he", ["hello"], 0.0),  # distance 3 of 5 is not below one half
        ("hallo", ["no", "hello"], 0.8),
        ("", ["hello"], 0.0),
    ],
)
def test_anls(given_answer, truths, score):
    assert anls(given_answer, truths) == pytest.approx(score)


@pytest.mark.parametrize(
    ("given_answer", "truth", "score"),
    [
        ("104", "100", 1.0),
        ("105", "100", 1.0),
        ("106", "100", 0.0),
        ("-95", "-100", 1.0),
        ("50%", "0.5", 1.0),
        ("0", "0", 1.0),
        ("0.01", "0", 0.0),
        ("Yes", "yes", 1.0),
        ("about 100", "100", 0.0),
    ],
)
def test_relaxed_accuracy(given_answer, truth, score):
    assert relaxed_accuracy(given_answer, [truth]) == score
