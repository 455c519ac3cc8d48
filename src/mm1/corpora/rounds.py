"""rounds: conversations on one picture after another; each follows one convention, and its first rounds tell which.

    USER: [picture]  ASSISTANT: roter Kreis
    USER: [picture]  ASSISTANT: grünes Dreieck
    USER: [picture]  ASSISTANT: blauer Kreis

A model that reads the rounds before answers the next one better: so a chat model learns from examples that a user gives
as rounds. There are 250 conventions, so that it is easier to read the rounds than to know the conventions by heart.
Six of pages are held out, so that a score on them tells whether examples are followed in general.

It needs the corpus easy-vqa.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from mm1.corpora.conventions import CONVENTIONS, Convention
from mm1.corpora.dialogue import Turn, dialogue
from mm1.corpora.easy_vqa import COLORS, SHAPES
from mm1.corpora.material import Material
from mm1.corpora.pages import OPENINGS
from mm1.corpora.seeded import seeded
from mm1.data.corpus import Split, open_split
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.progress import track

HELD_OUT = ("Color", "SHAPE", "shape, color", "it is color.", "German shape", "French color")
"""Names of the conventions of pages that no conversation follows: a third of them, and of every sort some."""

# What the conventions of the conversations are put together from.
_WORDINGS = (
    "color",
    "shape",
    "color shape",
    "shape, color",
    "German color",
    "German shape",
    "German color shape",
    "French color",
    "French shape color",
    "Spanish color",
    "Spanish shape",
)
_CASES: dict[str, Callable[[str], str]] = {"": str, ", upper case": str.upper, ", title case": str.title}
_BARE = "{}"
FRAMES = ("it is {}.", "a picture of a {}", "{}!", "({})", "I see {}", "{}, I think", "a {} thing")
SHARE_WITH_FRAME = 0.4

# What a picture is answered with where no rounds before it tell a convention.
_CAPTION = Convention("caption", lambda color, shape: f"a {color} {shape}")
SHARE_OF_CAPTIONS = 0.2

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
    """Return the material of rounds: the split `train`, of conversations of 2 to 9 rounds, and of one.

    The first of several answers is shown and no target: nothing before it tells the convention, and a model that
    learned it would answer a user's first picture by a convention that it guesses. In conversations of one round the
    answer is the picture's caption and a target, so that a picture without examples is captioned. All other answers are
    targets.

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
    bare = "; ".join(convention.phrase("red", "circle") for convention in followed([_BARE]))
    return Material(
        splits={"train": _conversations(pictures, count, several, seed)},
        licence=str(pictures.corpus["licence"]),
        sources=[f"corpus {_PICTURES}"],
        derived="Conversations are made up: the user shows pictures drawn at random, alone or with a fixed phrase, and "
        "each is put into words, from its colour and shape as easy-vqa's answers tell them, by the conversation's one "
        f"convention. {several:.0%} show two or three pictures a turn. A convention is a wording of pages in a letter "
        f"case, by example: {bare}. {SHARE_WITH_FRAME:.0%} put it into a frame: {' | '.join(FRAMES)}. Held out are the "
        f"conventions of pages named {' | '.join(HELD_OUT)}. The first of several answers is no target. "
        f"{SHARE_OF_CAPTIONS:.0%} of the conversations have one round instead: a picture and its caption.",
    )


def followed(frames: Sequence[str]) -> list[Convention]:
    """Return the conventions with these frames that conversations follow: none that is held out, and none twice."""
    of_pages = {convention.name: convention for convention in CONVENTIONS}
    made = {
        _sayings(convention): convention
        for frame in frames
        for wording in _WORDINGS
        for case in _CASES
        for convention in [_convention(of_pages[wording], case, frame)]
    }
    held_out = {_sayings(of_pages[name]) for name in HELD_OUT}
    return [convention for sayings, convention in made.items() if sayings not in held_out]


def _convention(wording: Convention, case: str, frame: str) -> Convention:
    def phrase(color: str, shape: str) -> str:
        words = _CASES[case](wording.phrase(color, shape))
        return frame.format(words)

    return Convention(f"{wording.name}{case}{'' if frame == _BARE else f', in {frame}'}", phrase)


def _sayings(convention: Convention) -> tuple[str, ...]:
    """Return all that is said by a convention, which is what tells it from others."""
    return tuple(convention.phrase(color, shape) for color in COLORS for shape in SHAPES)


def _conversations(pictures: Split, count: int, several: float, seed: int) -> Iterator[Document]:
    bare, framed = followed([_BARE]), followed(FRAMES)
    for number in track(range(count), "rounds: train"):
        draw = seeded(seed, "rounds", number)
        convention, rounds, at_once = _CAPTION, 1, 1
        if draw.random() >= SHARE_OF_CAPTIONS:
            convention = draw.choice(framed if draw.random() < SHARE_WITH_FRAME else bare)
            rounds, at_once = draw.randint(2, 9), draw.randint(2, 3) if draw.random() < several else 1
        turns = _turns(pictures, convention, rounds, at_once, draw)
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
        turns += [
            ("user", [*before, *images, *phrase]),
            ("assistant", [Text(answer, target=number > 0 or rounds == 1)]),
        ]
    return turns
