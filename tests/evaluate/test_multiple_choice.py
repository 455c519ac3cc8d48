"""Which option an answer chooses: a table of the forms that models write, and generated options."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mm1.evaluate.compare import result_statistics
from mm1.evaluate.metrics import METRICS
from mm1.evaluate.metrics.accuracy import normalize_answer
from mm1.evaluate.metrics.chosen_letter import by_letter, chosen_letter
from mm1.evaluate.metrics.multiple_choice import multiple_choice
from mm1.evaluate.tasks.task import Task

from .test_benchmark_tasks import Says
from .test_evaluate_model import run

ANIMALS = by_letter(["a cat", "a dog", "E. coli", "A and B"])
LETTERS = by_letter(["B", "A", "D", "C"])
NUMBERS = by_letter(["2", "-2", "20", "1,000"])
SMALL = by_letter(["the", "a", "an"])


@pytest.mark.parametrize(
    ("text", "options", "letter"),
    [
        # The letter alone, however it is written.
        *((text, ANIMALS, "B") for text in ("B", "b", "(B)", "(b)", "B.", "B)", "[B]", "B:", "**B**", "*B*.", "`B`")),
        *((text, ANIMALS, "B") for text in ('"B"', "$B$", r"\boxed{B}", r"$\boxed{\text{B}}$", r"\(B\)", " B\n")),
        ("A", ANIMALS, "A"),
        ("a", ANIMALS, "A"),
        ("E", ANIMALS, None),  # there are four options
        # The letter with more text.
        *((text, ANIMALS, "B") for text in ("B. a dog", "B) a dog", "b) a dog", "(B) a dog", "B: a dog", "B - a dog")),
        *((text, ANIMALS, "B") for text in ("B a dog", "B. a do", "B. A dog, as it barks", "B\nIt barks.")),
        *((text, ANIMALS, "B") for text in ("B. It has four legs.", "B, because it barks", "B because it barks")),
        *((text, ANIMALS, "B") for text in ("B is correct", "B is the right answer", "b) it barks", "B: it barks")),
        ("A because it purrs", ANIMALS, "A"),
        ("B. a cat", ANIMALS, None),  # letter and words are of two options
        ("(B) a cat", ANIMALS, None),
        # The option's words.
        *((text, ANIMALS, "B") for text in ("a dog", "A dog", "Dog.", "**a dog**", "the dog", "a dog\nIt barks.")),
        ("E. coli", ANIMALS, "C"),
        ("C. E. coli", ANIMALS, "C"),
        ("A and B", ANIMALS, "D"),
        ("(A) and (B)", ANIMALS, "D"),
        ("a dog or a cat", ANIMALS, None),
        ("it's a dog", ANIMALS, None),  # words inside a sentence are not looked for
        # What is announced.
        *((f"{word} B", ANIMALS, "B") for word in ("Answer:", "The answer is", "the correct option is", "Choice:")),
        *((f"{word} (B).", ANIMALS, "B") for word in ("Option", "I choose option", "Final answer -", "answer")),
        *(
            (f"So the answer is {said}", ANIMALS, "B")
            for said in ("b", "**B**", "B. a dog", "a dog.", "B in this case")
        ),
        ("The answer to what barks must be B", ANIMALS, "B"),
        ("Option A is wrong, so the answer is B", ANIMALS, "B"),
        ("Answer: B. Option A can't be right.", ANIMALS, "B"),
        ("Option B looks right", ANIMALS, "B"),
        ("It barks (B)", ANIMALS, "B"),
        ("The answer is a bird", ANIMALS, None),
        ("The best option is a red one", ANIMALS, None),
        ("The answer is not B", ANIMALS, None),
        ("The answer isn't B", ANIMALS, None),
        # Several letters.
        *(
            (text, ANIMALS, None)
            for text in ("A, B", "A or B", "A/B", "(A) and (C)", "C, D and A", "B & C", "Answer: A or B")
        ),
        *((text, ANIMALS, None) for text in ("Option A or option B", "A. a cat\nB. a dog", "Answer: A\nAnswer: B")),
        ("A. a cat\nB. a dog\nAnswer: B", ANIMALS, "B"),
        # Articles and abbreviations.
        *(
            (text, ANIMALS, None)
            for text in ("A bird", "a bird", "A bird is there", "The answer is a bird.", "D. C.", "D.C.")
        ),
        *(
            (text, ANIMALS, None)
            for text in ("C. elegans", "B. Obama", "U.S. Navy", "I think so", "C major", "B vitamins")
        ),
        # Options that are letters or numbers themselves.
        ("B", LETTERS, "B"),
        ("B.", LETTERS, "B"),
        ("B. A", LETTERS, "B"),
        ("(C)", LETTERS, "C"),
        ("b", by_letter(["x", "b", "y", "a"]), "B"),
        ("a", by_letter(["x", "b", "y", "a"]), "D"),  # option D reads just so
        ("A", by_letter(["x", "b", "y", "a"]), "A"),
        ("x", by_letter(["x", "b", "y", "a"]), "A"),
        ("X", by_letter(["W", "X"]), "B"),  # two options: X is none's letter
        ("the", SMALL, "A"),
        ("a", SMALL, "B"),
        ("An", SMALL, "C"),
        ("2", NUMBERS, "A"),
        ("-2", NUMBERS, "B"),
        ("-2.", NUMBERS, "B"),
        ("B. -2", NUMBERS, "B"),
        ("20", NUMBERS, "C"),
        ("1000", NUMBERS, "D"),
        ("Answer: 20", NUMBERS, "C"),
        ("200", NUMBERS, None),
        # Nothing.
        *((text, ANIMALS, None) for text in ("", " ", "?", "none", "I don't know")),
    ],
)
def test_chosen_letter(text, options, letter):
    assert chosen_letter(text, options) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        *((text, "B") for text in ("B", "(B)", "B. a dog", "B: a dog", "b)", "The answer is (B)", "Answer: B")),
        *((text, None) for text in ("A dog", "a dog", "I think it's a dog", "The answer is a dog", "E minor", "")),
    ],
)
def test_chosen_letter_of_options_that_nobody_gives(text, letter):
    assert chosen_letter(text) == letter


@pytest.mark.parametrize(
    ("prediction", "references", "score"),
    [
        ("The answer is a dog.", ["A", "a cat"], 0.0),
        ("The best option is a red one", ["A", "a blue one"], 0.0),
        ("E. coli", ["B", "E. coli"], 1.0),
        ("E. coli", ["E", "S. aureus"], 0.0),
        ("C. elegans", ["C", "a fly"], 0.0),
        ("B. Obama", ["B", "A. Lincoln"], 0.0),
        ("U.S. Navy", ["C", "U.S. Navy"], 1.0),
        ("D.C.", ["D", "New York"], 0.0),
        ("B", ["A", "B"], 0.0),
        ("C", ["D", "C"], 0.0),
        ("A", ["A", "B"], 1.0),
        ("3", ["B", "3"], 1.0),
        ("-3", ["B", "3"], 0.0),
        ("X", ["A", "X"], 1.0),
        ("B) a dog", ["B", "a dog"], 1.0),
        ("B.", ["B", "a dog"], 1.0),
        ("A dog", ["B", "a dog"], 1.0),
        ("C", ["B", "a dog"], 0.0),
        ("a cat", ["B", "a dog"], 0.0),
        ("C", ["B", "C", "a dog", "a cat"], 1.0),  # two right options
        ("B. because", ["B"], 1.0),  # a letter whose words nobody knows
        ("", ["B", ""], 0.0),
    ],
)
def test_score_where_only_the_right_options_words_are_known(prediction, references, score):
    assert multiple_choice(prediction, references) == score


def test_score_of_more_options_than_letters_and_of_equal_options():
    many = [f"word {n}" for n in range(29)] + ["B"]
    assert multiple_choice("word 4", ["word 4"], many) == 1.0
    assert multiple_choice("B", ["word 1"], many) == 0.0
    assert multiple_choice("B", ["B"], many) == 1.0
    assert multiple_choice("a dog", ["B", "a dog"], ["a dog", "a dog", "a cat"]) == 1.0


FORMS = [
    "{l}",
    "({l})",
    "{l}.",
    "{l})",
    "**{l}**",
    "Answer: {l}",
    "The answer is {l}.",
    "Option {l}",
    "answer is ({l})",
]
WITH_WORDS = ["{l}. {w}", "{l}) {w}", "({l}) {w}", "{l}: {w}", "The answer is {l}. {w}", "Answer: {w}", "{w}", "{w}."]
WORDS = st.one_of(
    st.sampled_from(
        [
            "a dog",
            "E. coli",
            "U.S. Navy",
            "A and B",
            "none of these",
            "3",
            "-3",
            "3.5",
            "1/2",
            "the",
            "B",
            "c",
            "A.",
            "I",
        ]
    ),
    st.text("abcDE .-15", min_size=1, max_size=12).map(str.strip),
)


@given(
    st.lists(WORDS, min_size=2, max_size=9, unique_by=normalize_answer),
    st.integers(0, 8),
    st.integers(0, 8),
    st.sampled_from(FORMS + WITH_WORDS),
)
def test_whoever_names_an_option_chooses_it_and_no_other(options, right, named, form):
    """Right for the option that is named, wrong for all others; letters win over options that read like letters."""
    right, named = right % len(options), named % len(options)
    assume(all(any(character.isalnum() for character in words) for words in options))
    letter = "ABCDEFGHI"[named]
    prediction = form.format(l=letter, w=options[named])
    references = ["ABCDEFGHI"[right], options[right]]
    if (
        form in WITH_WORDS
    ):  # words that are a letter, or begin with one, may say something else than which option they are
        alone = {words.strip(" .") for words in options}
        assume(not any(len(words) == 1 and words.isalpha() for words in alone))
        assume(normalize_answer(prediction) not in {normalize_answer(w) for w in options if w != options[named]})
    assert multiple_choice(prediction, references, options) == float(right == named), prediction


@given(st.text(max_size=40), st.lists(WORDS, min_size=2, max_size=5))
def test_any_text_chooses_one_option_or_none(text, options):
    assert chosen_letter(text, by_letter(options)) in {*"ABCDE"[: len(options)], None}


def choice_task(tmp_path, **more) -> Task:
    rows = [
        {"question": "first?", "choices": ["a cat", "a dog", "E. coli"], "label": 2},
        {"question": "second?", "choices": ["B", "A", "C"], "label": 0},
        {"question": "third?", "choices": ["2", "3"], "label": 1},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"file": str(tmp_path / "rows.jsonl"), "answers": "label", "options": "choices", "answer_is": "index"}
    content = {"name": "choice", "description": "-", "data": {**data, "images": []}, "prompt": "{question}\n{options}"}
    return Task.model_validate({**content, "metric": "multiple_choice", **more})


def test_scoring_reads_answers_with_all_options_and_keeps_them(tmp_path):
    """The letter E is none of three options; a result can be scored again from its file."""
    answers = {"first?": "E. coli", "second?": "B", "third?": "3"}
    (result,) = run(Says(answers), tmp_path / "scores", choice_task(tmp_path), shots=(0,))
    scores = {p["prompt"].split("\n")[0]: p["score"] for p in result["predictions"]}
    assert scores == {"first?": 1.0, "second?": 0.0, "third?": 1.0}
    assert all(len(p["options"]) in (2, 3) for p in result["predictions"])
    stored = json.loads((tmp_path / "scores" / "choice.0-shot.json").read_text())
    assert METRICS["multiple_choice"].score(result_statistics(stored)[0]) == pytest.approx(2 / 3)


class Chooses(Says):
    """Finds one option's words likeliest, whatever is asked."""

    def log_likelihoods(self, prompts, continuations, *, advance=None):
        from mm1.evaluate.models.generator import Likelihood

        return [Likelihood(0.0 if text.strip() in self._answers else -1.0, True) for text in continuations]


def test_options_chosen_by_likelihood_are_compared_as_words(tmp_path):
    """Of the options B, A, C the right one is A. B: whoever finds the words A likeliest has chosen option B."""
    task = choice_task(tmp_path, likelihood="sum", metric="exact_match", prompt="{question}")
    for words, right in (("A", 0.0), ("B", 1.0)):
        (result,) = run(Chooses({words: ""}), tmp_path / words, task, shots=(0,))
        (score,) = [p["score"] for p in result["predictions"] if p["prompt"] == "second?"]
        assert score == right
