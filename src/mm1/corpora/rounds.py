"""rounds: conversations on one picture after another; each follows one convention, and its first rounds tell which.

    USER: [picture]  ASSISTANT: roter Kreis
    USER: [picture]  ASSISTANT: grünes Dreieck
    USER: [picture]  ASSISTANT: blauer Kreis

A model that reads the rounds before answers the next one better: so a chat model learns from examples that a user gives
as rounds. It needs the corpus easy-vqa. Some of the conventions of pages are held out, so that a score on them tells
whether examples are followed in general.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from mm1.corpora.conventions import CONVENTIONS, Convention
from mm1.corpora.dialogue import Turn, dialogue
from mm1.corpora.material import Material
from mm1.corpora.pages import OPENINGS
from mm1.corpora.seeded import seeded
from mm1.data.corpus import Split, open_split
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.progress import track

HELD_OUT = ("Color", "SHAPE", "shape, color", "it is color.", "German shape", "French color")
"""Names of the conventions that no conversation follows: a third, and of every sort some."""

# None of these tells the convention. The last one asks for a caption wherever a user asks nothing.
PHRASES = (
    "What is this?",
    "And this one?",
    "Your turn.",
    "Go on.",
    "Provide a one-sentence caption for the provided image.",
)
SHARE_WITH_PHRASE = 0.4
SHARE_WITH_OPENING = 0.2
SEPARATOR = "; "
"""Text between the descriptions of several pictures of one turn."""

_PICTURES = "easy-vqa/train-captions"


def build(*, count: int = 4000, several: float = 0.2, seed: int = 0) -> Material:
    """Return the material of rounds: the split `train`, of conversations of 2 to 9 rounds.

    The first answer is shown and no target: nothing before it tells the convention, and a model that learned it would
    answer a user's first picture by a convention that it guesses. All other answers are targets.

    Args:
        count: Number of conversations.
        several: Share of the conversations whose turns show two or three pictures instead of one.
        seed: The seed of all random choices.
    """
    if count < 1 or not 0 <= several <= 1:
        raise UserError(
            f"options of corpus rounds: set count to at least 1 and several from 0 to 1 (given: count={count}, "
            f"several={several})"
        )
    pictures = open_split(_PICTURES)
    followed = [convention for convention in CONVENTIONS if convention.name not in HELD_OUT]
    examples = "; ".join(convention.phrase("red", "circle") for convention in followed)
    return Material(
        splits={"train": _conversations(pictures, followed, count, several, seed)},
        licence=str(pictures.corpus["licence"]),
        sources=[f"corpus {_PICTURES}"],
        derived="Conversations are made up: the user shows pictures drawn at random, alone or with a fixed phrase, and "
        "each is put into words, from its colour and shape as easy-vqa's answers tell them, by the conversation's one "
        f"convention. {several:.0%} show two or three pictures a turn. The conventions, by example: {examples}. Held "
        f"out are the conventions of pages named {', '.join(repr(name) for name in HELD_OUT)}. The first answer of a "
        "conversation is no target.",
    )


def _conversations(
    pictures: Split, followed: Sequence[Convention], count: int, several: float, seed: int
) -> Iterator[Document]:
    for number in track(range(count), "rounds: train"):
        draw = seeded(seed, "rounds", number)
        convention = draw.choice(followed)
        at_once = draw.randint(2, 3) if draw.random() < several else 1
        turns = _turns(pictures, convention, draw.randint(2, 9), at_once, draw)
        yield dialogue(f"train/{number}", turns, convention=convention.name, pictures_a_turn=at_once)


def _turns(pictures: Split, convention: Convention, rounds: int, at_once: int, draw: random.Random) -> list[Turn]:
    opening = [draw.choice(OPENINGS)] if draw.random() < SHARE_WITH_OPENING else []
    phrase = [draw.choice(PHRASES)] if draw.random() < SHARE_WITH_PHRASE else []
    rows = draw.sample(range(len(pictures)), rounds * at_once)
    turns: list[Turn] = []
    for number in range(rounds):
        shown = [pictures[row] for row in rows[number * at_once :][:at_once]]
        images: list[Image] = [image for document in shown for image in document.images]
        answer = SEPARATOR.join(convention.phrase(one.meta["color"], one.meta["shape"]) for one in shown)
        before = opening if number == 0 else []
        turns += [("user", [*before, *images, *phrase]), ("assistant", [Text(answer, target=number > 0)])]
    return turns
