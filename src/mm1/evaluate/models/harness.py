"""What the adapters for lm-eval and lmms-eval share: their prompts and settings in our terms."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from mm1.document import Document, Image, Part, Text
from mm1.errors import UserError
from mm1.evaluate.models.generator import Generator
from mm1.processing.chat import ROLES

_MARK = "<image>"


def harness_conversation(messages: Sequence[Mapping[str, str]], visuals: Sequence[Any], where: str) -> Document:
    """Return a conversation with pictures at its texts' marks, or before the last turn's text if it has another number.

    Args:
        messages: Each has a `role` and a text as `content`; the last one is the user's.
        visuals: Pillow pictures.
        where: Names the prompt in messages.

    Raises:
        UserError: If it shows something other than pictures, a role is unknown, or it doesn't end with the user's turn.
    """
    roles = [message["role"] for message in messages]
    for role in roles:
        if role not in ROLES:
            raise UserError(f"{where}: it has a turn of '{role}', and mm1 takes turns of {', '.join(ROLES)}")
    if roles[-1:] != ["user"]:
        raise UserError(
            f"{where}: it begins the answer itself, and mm1 writes whole answers in conversations: leave gen_prefix "
            "out of the task, or the chat template out of the command"
        )
    parts: list[Part] = []
    turns: list[str] = []
    contents = _with_pictures([message["content"] for message in messages], visuals, where)
    for role, content in zip(roles, contents, strict=True):
        texts = [Text(part.strip(), target=False) if isinstance(part, str) else part for part in content]
        own = [part for part in texts if part != Text("", target=False)]  # the chat template separates texts
        parts += own
        turns += [role] * len(own)
    return Document(where, "chat", tuple(parts), {"turns": turns})


def harness_prompt(context: str, visuals: Sequence[Any], where: str) -> Document:
    """Return a prompt with pictures at the text's marks, or before the text if it has another number of marks.

    Args:
        context: The prompt's text.
        visuals: Pillow pictures.
        where: Names the prompt in messages.

    Raises:
        UserError: If it shows something other than pictures.
    """
    parts: list[Part] = []
    (content,) = _with_pictures([context], visuals, where)
    for part in content:
        if isinstance(part, Image):
            parts.append(part)
        elif part:
            # In pre-training, text after a picture begins with a space.
            space = " " if parts and isinstance(parts[-1], Image) and not part[0].isspace() else ""
            parts.append(Text(space + part, target=False))
    return Document(where, "caption", tuple(parts))


def answers(
    generator: Generator, prompts: Sequence[Document], settings: Sequence[Mapping[str, Any]], new_tokens: Sequence[int]
) -> list[str]:
    """Return the answers to prompts, those of equal settings in batches.

    Args:
        generator: The model.
        prompts: The prompts.
        settings: Of each request; it must ask for greedy decoding.
        new_tokens: Most tokens of each answer.

    Raises:
        UserError: If a request asks for sampling, or a prompt can't be answered.
    """
    alike: defaultdict[tuple[tuple[str, ...], int], list[int]] = defaultdict(list)
    for index, (own, most) in enumerate(zip(settings, new_tokens, strict=True)):
        alike[_stop_strings(own), most].append(index)
    found = [""] * len(prompts)
    for (stop, most), indices in alike.items():
        generated = generator.generate([prompts[index] for index in indices], max_new_tokens=most, stop=stop)
        for index, answer in zip(indices, generated, strict=True):
            if isinstance(answer, UserError):
                raise answer
            found[index] = answer
    return found


def _stop_strings(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a request's stop strings; the request must ask for greedy decoding."""
    if (
        settings.get("do_sample")
        or float(settings.get("temperature") or 0) > 0
        or int(settings.get("num_beams", 1)) > 1
    ):
        raise UserError("mm1 decodes greedily: set do_sample: false, temperature: 0 and num_beams: 1 in the task")
    until = settings.get("until") or ()
    return (until,) if isinstance(until, str) else tuple(until)


def _picture(visual: Any, where: str) -> Image:
    """Return a picture, encoded again, from the decoded one that lmms-eval gives."""
    if not hasattr(visual, "save"):
        raise UserError(
            f"{where}: it shows a {type(visual).__name__}, and mm1 takes only pictures: choose a task without video or "
            "sound"
        )
    buffer = io.BytesIO()
    visual.convert("RGB").save(buffer, "PNG", compress_level=1)
    return Image(buffer.getvalue())


def _with_pictures(texts: Sequence[str], visuals: Sequence[Any], where: str) -> list[list[str | Image]]:
    """Return texts with pictures at their marks, or before the last text if all have another number of marks."""
    pictures = [_picture(visual, where) for visual in visuals]
    pieces = [text.split(_MARK) for text in texts]
    if sum(len(own) - 1 for own in pieces) != len(pictures):
        pieces = [["".join(own)] for own in pieces]
        pieces[-1] = [""] * len(pictures) + pieces[-1]
    left = iter(pictures)
    return [[own[0], *(part for piece in own[1:] for part in (next(left), piece))] for own in pieces]
