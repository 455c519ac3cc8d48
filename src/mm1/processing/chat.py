r"""Conversations: the one chat template laid over a document's turns.

    [user: picture, "What is this?"] [assistant: "A bus."]
    -> <bos> "USER:" <picture> " What is this?\nASSISTANT:" " A bus." <eos>
                                                            target   target

The template is Jinja, as `transformers` has it, and is stored with the processor. What stands between
`{% generation %}` and `{% endgeneration %}` is a target. It is rendered with marks in the place of texts, so that
nothing a text says can become a special token or a picture.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from mm1.document import Document, Image, Part, Text
from mm1.errors import UserError, in_one_line
from mm1.processing.tokenizer import IMAGE_TOKEN
from mm1.processing.turn_marks import special_names, written_tokens

ROLES = ("system", "user", "assistant")

_MARK = re.compile("\ue000(\\d+)\ue001")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class Special:
    """A special token.

    Attributes:
        id: Its id.
        target: Whether the language model is trained to predict it.
    """

    id: int
    target: bool = False


Piece = Text | Image | Special
"""What a document's tokens are made of: texts are tokenized each on its own."""

_Answer = bool | None
"""Whether an answer is a target; None: outside of answers."""


def default_chat_template() -> str:
    """Return the template that comes with the package."""
    return resources.files("mm1.processing").joinpath("chat_template.jinja").read_text("utf-8")


def read_chat_template(file: Path) -> str:
    """Return the template in a file.

    Raises:
        UserError: If the file can't be read.
    """
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: the chat template can't be read ({error}): check the path") from None


@dataclass(frozen=True)
class ChatLayout:
    """A template and what it needs of a tokenizer; can be sent to other processes.

    Attributes:
        template: Jinja.
        names: The special tokens that it may name, as in `bos_token: <bos>`.
        ids: The id of every special token.
    """

    template: str
    names: Mapping[str, str]
    ids: Mapping[str, int]

    def __post_init__(self) -> None:
        if not names_targets(self.template):
            raise UserError(
                "the chat template doesn't say what the targets are: put {% generation %} and {% endgeneration %} "
                "around the assistant's answer and the token that ends it"
            )

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides how a conversation is laid out."""
        content = json.dumps([self.template, dict(self.names), dict(self.ids)], sort_keys=True)
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()

    def lay_out(self, document: Document, *, close: bool = True) -> list[Piece]:
        """Return a conversation as pieces, the template's own tokens included.

        Args:
            document: Of kind `chat`.
            close: False: an answer is to follow, so the template's opening of one stands at the end.

        Raises:
            UserError: If the template fails, or drops or moves a text or a picture.
        """
        parts = document.parts
        contents = [f"\ue000{number}\ue001" for number in range(len(parts))]
        messages = [
            {
                "role": role,
                "content": [
                    {"type": "image"} if isinstance(parts[n], Image) else {"type": "text", "text": contents[n]}
                    for n in numbers
                ],
            }
            for role, numbers in turns(document)
        ]
        render: Any = render_jinja_template  # the library's types are not what it returns
        try:
            (text,), (spans,) = render(
                [messages],
                chat_template=self.template,
                return_assistant_tokens_mask=True,
                add_generation_prompt=not close,
                **self.names,
            )
        except Exception as error:  # a template is a program: it may raise anything
            reason = in_one_line(error)
            raise UserError(f"document '{document.id}': the chat template failed ({reason})") from None
        found = list(self._pattern.finditer(text))
        shown = [int(m[1]) if m[1] else None for m in found if m[1] or m[0] == IMAGE_TOKEN]
        if shown != [None if isinstance(part, Image) else number for number, part in enumerate(parts)]:
            raise UserError(f"document '{document.id}': the chat template drops or moves some of its texts or pictures")
        return list(_joined(self._pieces(text, found, _answers(text, spans, parts), parts)))

    @property
    def _pattern(self) -> re.Pattern[str]:
        special = "|".join(re.escape(token) for token in sorted(self.ids, key=len, reverse=True))
        return re.compile(f"{_MARK.pattern}|{special}")

    def _pieces(
        self, text: str, found: Sequence[re.Match[str]], answers: Sequence[_Answer], parts: Sequence[Part]
    ) -> Iterator[tuple[Piece, _Answer]]:
        """Yield what a rendered conversation consists of, texts in bits."""
        images = (part for part in parts if isinstance(part, Image))
        end = 0
        for match in found:
            yield from _plain(text, answers, end, match.start())
            end, answer = match.end(), answers[match.start()]
            if match[1] is not None:
                part = parts[int(match[1])]
                assert isinstance(part, Text)
                yield Text(part.text, answer is True), answer
            elif match[0] == IMAGE_TOKEN:
                yield next(images), answer
            else:
                yield Special(self.ids[match[0]], answer is True), answer
        yield from _plain(text, answers, end, len(text))


def names_targets(template: str) -> bool:
    """Return whether a template says what the targets are; without that no model can be trained with it."""
    return _GENERATION.search(template) is not None


def chat_layout(template: str, tokenizer: PreTrainedTokenizerBase) -> ChatLayout:
    """Return the layout of a template for a tokenizer.

    Raises:
        UserError: If the template doesn't say what the targets are.
    """
    named: Any = {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}
    return ChatLayout(template, special_names(tokenizer), named | written_tokens(template, tokenizer))


def turns(document: Document) -> list[tuple[str, list[int]]]:
    """Return the turns of a conversation: role, and the numbers of its parts.

    `meta["turns"]` names the role of every part; without it, target texts are the assistant's and all else is the
    user's.

    Raises:
        UserError: If a role is unknown, or there are more or fewer roles than parts.
    """
    roles = document.meta.get("turns")
    if roles is None:
        roles = ["assistant" if isinstance(part, Text) and part.target else "user" for part in document.parts]
    if not isinstance(roles, list) or len(roles) != len(document.parts) or not all(role in ROLES for role in roles):
        raise UserError(f"document '{document.id}': its turns must name one of {', '.join(ROLES)} for every part")
    return [(role, list(numbers)) for role, numbers in groupby(range(len(roles)), roles.__getitem__)]


def _answers(text: str, spans: Sequence[tuple[int, int]], parts: Sequence[Part]) -> list[_Answer]:
    """Return what every character belongs to: answers are targets, unless their own text says otherwise."""
    answers: list[_Answer] = [None] * len(text)
    for start, end in spans:
        own = [parts[int(match[1])] for match in _MARK.finditer(text, start, end)]
        answers[start:end] = [all(isinstance(part, Text) and part.target for part in own)] * (end - start)
    return answers


def _plain(text: str, answers: Sequence[_Answer], start: int, end: int) -> Iterator[tuple[Text, _Answer]]:
    for answer, places in groupby(range(start, end), answers.__getitem__):
        yield Text("".join(text[place] for place in places), answer is True), answer


def _joined(pieces: Iterator[tuple[Piece, _Answer]]) -> Iterator[Piece]:
    """Join texts that follow each other inside an answer, or outside of answers, so that they are tokenized as one.

    An answer is tokenized apart from what is around it even if it is no target: so a prompt has the tokens of training.
    """
    for (is_text, answer), some in groupby(pieces, lambda one: (isinstance(one[0], Text), one[1])):
        if is_text:
            yield Text("".join(piece.text for piece, _ in some if isinstance(piece, Text)), answer is True)
        else:
            yield from (piece for piece, _ in some)
