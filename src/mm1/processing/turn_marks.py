r"""What a chat template writes around turns: how a conversation begins, and which token ends an answer.

A template is a program, so it is asked: small conversations are rendered, with marks in the place of texts.

    "<|im_start|>user\n" TEXT "<|im_end|>\n<|im_start|>assistant\n" ANSWER "<|im_end|>" "\n<|im_start|>user\n" TEXT ...
     opening                                                          end
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from mm1.processing.tokenizer import IMAGE_TOKEN

_TEXT, _ANSWER = "\ue000text\ue001", "\ue000answer\ue001"
_ROLES = (
    ("user",),
    ("system", "user"),
    ("user", "assistant"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user"),
)


@dataclass(frozen=True)
class TurnMarks:
    """What a template writes around turns.

    Attributes:
        openings: The texts with which a conversation may begin, up to its first text or picture.
        end_ids: The tokens that end an answer; none if the template ends answers without a token of their own.
    """

    openings: tuple[str, ...]
    end_ids: tuple[int, ...]


def turn_marks(template: str, tokenizer: PreTrainedTokenizerBase) -> TurnMarks:
    """Return what a template writes around turns; what it can't render is left out."""
    openings, ends = set(), set()
    # Some vocabularies have added tokens of white space alone: those end nothing.
    added = {token: id for token, id in tokenizer.get_added_vocab().items() if token.strip() and token != IMAGE_TOKEN}
    for text in _conversations(template, special_names(tokenizer)):
        openings.add(text.partition(_TEXT)[0].partition(IMAGE_TOKEN)[0])
        _, _, rest = text.partition(_ANSWER)
        after = rest.partition(_TEXT)[0]
        found = {after.find(token): id for token, id in sorted(added.items(), key=lambda item: len(item[0]))}
        found.pop(-1, None)
        if found:
            ends.add(found[min(found)])
    return TurnMarks(tuple(sorted(openings - {""})), tuple(sorted(ends)))


def written_tokens(template: str, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the special tokens that a template writes, with their ids."""
    texts = list(_conversations(template, special_names(tokenizer)))
    special = {str(token): id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {token: id for token, id in special.items() if any(token in text for text in texts)}


def special_names(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Return the special tokens that a template may name, as in `bos_token: <bos>`."""
    return {name: str(token) for name, token in tokenizer.special_tokens_map.items() if not isinstance(token, list)}


def _conversations(template: str, names: Mapping[str, str]) -> Iterator[str]:
    """Yield small conversations as a template renders them, those that it renders."""
    for roles in _ROLES:
        for picture in (False, True):
            for as_text in (False, True):
                messages = [_message(role, picture and role == "user", as_text) for role in roles]
                text = _rendered(template, messages, names)
                # A template for contents that are text writes lists as Python does.
                if text is not None and "{'type'" not in text:
                    yield text
                    break


def _message(role: str, picture: bool, as_text: bool) -> dict[str, Any]:
    text = _ANSWER if role == "assistant" else _TEXT
    if as_text:
        return {"role": role, "content": IMAGE_TOKEN + text if picture else text}
    pictures = [{"type": "image"}] if picture else []
    return {"role": role, "content": [*pictures, {"type": "text", "text": text}]}


def _rendered(template: str, messages: list[dict[str, Any]], names: Mapping[str, str]) -> str | None:
    render: Any = render_jinja_template  # the library's types are not what it returns
    try:
        (text,), _ = render([messages], chat_template=template, add_generation_prompt=False, **names)
    except Exception:  # a template is a program: it may raise anything, and refuses roles this way
        return None
    return str(text)
