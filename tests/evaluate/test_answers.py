import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm1.evaluate.metrics.anls import anls, edit_distance
from mm1.evaluate.metrics.multiple_choice import chosen_letter, multiple_choice
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


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B. a dog", "B"),
        ("B: a dog", "B"),
        ("The answer is (C)", "C"),
        ("Answer: D", "D"),
        ("A dog", None),
        ("a dog", None),
        ("I think it's a dog", None),
        ("", None),
    ],
)
def test_chosen_letter(text, letter):
    assert chosen_letter(text) == letter


def test_multiple_choice_takes_letter_or_words():
    assert multiple_choice("B.", ["B", "a dog"]) == 1.0
    assert multiple_choice("A dog", ["B", "a dog"]) == 1.0
    assert multiple_choice("C", ["B", "a dog"]) == 0.0
    assert multiple_choice("a cat", ["B", "a dog"]) == 0.0
