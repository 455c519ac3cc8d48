"""What was said so far, and the prompt for what is asked next.

A model that was fine-tuned on conversations gets them as turns. One that was only pre-trained knows no turns: every
line is then a prompt of its own, after the examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mm1.document import Document, Image, Part, Text
from mm1.evaluate.caption import asked_parts


@dataclass(frozen=True)
class Round:
    """A question with its answer.

    Attributes:
        pictures: Those shown with the question.
        question: The question; empty: a caption is asked for. In an example, empty stands for the question that is
            asked after it.
        answer: The answer.
        raw: Whether the question is the text before the answer as it is, without a form around it.
        tokens: Number of tokens of the answer.
        seconds: How long the answer took.
    """

    pictures: tuple[Image, ...]
    question: str
    answer: str
    raw: bool = False
    tokens: int = 0
    seconds: float = 0.0


@dataclass
class Conversation:
    """Examples and rounds.

    Attributes:
        turns: Whether the model takes turns.
        examples: The shots that come before everything.
        rounds: What was said.
        pending: Pictures that wait for the next question.
    """

    turns: bool
    examples: list[Round] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    pending: list[Image] = field(default_factory=list)

    def next_round(self, question: str, *, raw: bool = False) -> Round:
        """Return the round that asks a question about the waiting pictures; without turns, else about the last ones."""
        pictures = tuple(self.pending)
        if not self.turns and not pictures and self.rounds:
            pictures = self.rounds[-1].pictures
        return Round(pictures, question, "", raw)

    def prompt(self, asked: Round) -> Document:
        """Return the prompt whose continuation answers a round."""
        return self._conversation(asked) if self.turns else self._few_shot(asked)

    def _conversation(self, asked: Round) -> Document:
        parts: list[Part] = []
        roles: list[str] = []
        for one in [*self.examples, *self.rounds, asked]:
            question = asked_parts(one.pictures, one.question or asked.question or None, turns=True)
            answer: list[Part] = [] if one is asked else [Text(one.answer, target=False)]
            parts += [*question, *answer]
            roles += ["user"] * len(question) + ["assistant"] * len(answer)
        return Document("this chat", "chat", tuple(parts), {"turns": roles})

    def _few_shot(self, asked: Round) -> Document:
        parts: list[Part] = []
        for one in [*self.examples, asked]:
            question = one.question or asked.question
            if asked.raw:
                parts += [*one.pictures, *_raw(one, asked)]
            else:
                parts += asked_parts(one.pictures, question or None, turns=False)
            if one is not asked:
                parts.append(Text(f" {one.answer}\n", target=False))
        return Document("this chat", "interleaved" if self.examples else "caption", tuple(parts))


def _raw(one: Round, asked: Round) -> Sequence[Part]:
    text = one.question or ("" if one is not asked else asked.question)
    # In pre-training, text after a picture begins with a space.
    space = " " if text and one.pictures and not text[0].isspace() else ""
    return [Text(space + text, target=False)] if text else []
