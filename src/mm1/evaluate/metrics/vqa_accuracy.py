"""VQA accuracy: min(annotators who gave the answer / 3, 1), averaged over the ten ways to leave one annotator out.

Antol et al., "VQA: Visual Question Answering" (ICCV 2015). The answer normalisation is that of the official evaluation
(visualqa.org/evaluation.html, github.com/GT-Vision-Lab/VQA), including its quirks. Prediction and references are always
normalised, as in OpenFlamingo's copy, which the paper's scores were made with. One version of the official script
doesn't normalise references on which all annotators agree: "t-shirt" is then wrong for ten times "t-shirt".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mm1.evaluate.metrics.metric import Metric, per_pair

_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # apostrophes and colons stay: "girl's", "10:30"
_PERIOD = re.compile(r"\.(?!\d)")
_DIGIT_COMMA = re.compile(r"\d,\d")

# Contractions with their apostrophes; each key is the word without one of them. "well", "were", "shell" and "its" are
# not listed, since they are words themselves.
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll
somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTED.split()
    for place in range(len(word))
    if word[place] == "'"
} | {"somebody'd": "somebodyd"}


def normalize_vqa(answer: str) -> str:
    """Return an answer in the form that the official evaluation compares.

    Punctuation next to a space, or anywhere in an answer with a comma between digits, is removed; other punctuation
    becomes a space. Periods are removed unless a digit follows. The text becomes lower case, number words up to ten
    become digits, articles are removed, and contractions get their apostrophes.
    """
    joined = _DIGIT_COMMA.search(answer) is not None
    text = answer
    for mark in _PUNCTUATION:
        beside_space = mark + " " in answer or " " + mark in answer
        text = text.replace(mark, "" if joined or beside_space else " ")
    words = (_NUMBERS.get(word, word) for word in _PERIOD.sub("", text).lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(prediction: str, references: Sequence[str]) -> float:
    """Return the accuracy of one answer against the annotators' answers (usually ten).

    With a single reference a match is 1.0, since there is no annotator to leave out.
    """
    given = normalize_vqa(_one_line(prediction))
    matches = [normalize_vqa(_one_line(reference)) == given for reference in references]
    if len(matches) == 1:
        return float(matches[0])
    return sum(min(1.0, (sum(matches) - own) / 3) for own in matches) / len(matches)


def _one_line(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


VQA_ACCURACY = Metric(
    "vqa_accuracy",
    "VQA accuracy",
    "visualqa.org/evaluation.html (Antol et al. 2015)",
    per_pair(vqa_accuracy),
)
