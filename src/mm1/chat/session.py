"""A chat with a loaded model: pictures that wait, examples, answers on the screen, the chat on disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mm1.chat.conversation import Conversation, Round
from mm1.chat.examples import hash_examples, read_examples
from mm1.chat.history import last_file, new_file, read_history, write_history
from mm1.chat.terminal import Terminal, counted
from mm1.chat.writing import AnswerWriter
from mm1.document import Image
from mm1.errors import UserError
from mm1.evaluate.models.generator import ContextTooShort
from mm1.evaluate.models.loading import load_generator
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.evaluate.models.stops import Stops
from mm1.processing.images import ImageError, decode_image


@dataclass(frozen=True)
class ChatSettings:
    """How a chat is held.

    Attributes:
        max_new_tokens: The most tokens of an answer.
        stop: Strings that end an answer.
        history: File that the chat is resumed from, if it exists, and saved to; None: a new one, if a person types.
        resume: Whether the last chat with the model goes on.
        device: `auto`, or a torch device.
        dtype: `auto`, or a torch dtype's name.
        quantize: The precision of the decoder's weights, int8 or int4; None: that of `dtype`.
    """

    max_new_tokens: int
    stop: tuple[str, ...]
    history: Path | None = None
    resume: bool = False
    device: str = "auto"
    dtype: str = "auto"
    quantize: str | None = None


class Session:
    """A chat with a model.

    Args:
        model: Name of a model (see `mm1.places.MODEL_HELP`).
        settings: How it is held.
        terminal: Where it is held.

    Raises:
        UserError: If the model doesn't exist or is none of ours, or the chat to resume can't be read.
    """

    def __init__(self, model: str, settings: ChatSettings, terminal: Terminal | None = None) -> None:
        self.model = model
        self.settings = settings
        self.terminal = terminal or Terminal()
        self.file = settings.history
        if settings.resume:
            if settings.history is not None:
                raise UserError("--resume takes the last chat, and --history names one: give one of them")
            self.file = last_file(model)
        saved = read_history(self.file) if self.file is not None and self.file.exists() else None
        generator = load_generator(model, device=settings.device, dtype=settings.dtype, quantize=settings.quantize)
        if not isinstance(generator, MM1Generator):
            raise UserError(
                f"{model}: not an MM1 model, and mm1 chat needs one: `transformers chat` takes other families"
            )
        self.generator = generator
        self.chat = Conversation(generator.takes_turns)
        self.examples: tuple[Path, int, str] | None = None
        if saved is not None:
            self._resume(saved.model, saved.rounds, saved.examples)
        elif self.file is None and self.terminal.interactive:
            self.file = new_file(model)

    @property
    def processor(self) -> Any:
        """The model's processor."""
        return self.generator.processor

    def attach(self, path: Path) -> None:
        """Have a picture wait for the next question.

        Raises:
            UserError: If it is not a readable picture.
        """
        picture = read_picture(path)
        self.chat.pending.append(picture)
        self.terminal.show(sum(len(one.pictures) for one in self.chat.rounds) + len(self.chat.pending), picture)

    def show_examples(self, place: Path, count: int | None = None) -> None:
        """Put the examples of a folder or a file before the chat, in the place of those before.

        Raises:
            UserError: If they can't be read.
        """
        rounds = read_examples(place, count)
        without = replace(self.chat, examples=[])
        self.chat.examples = rounds
        self.examples = (place.absolute(), len(rounds), hash_examples(rounds))
        asked = self.chat.next_round("?")
        tokens = self.count_tokens(asked) - self.generator.count_tokens(without.prompt(asked))
        self.terminal.say(f"{counted(len(rounds), 'example')} from {place}, {counted(tokens, 'token')}")

    def count_tokens(self, asked: Round) -> int:
        """Return the tokens of the prompt of a round."""
        return self.generator.count_tokens(self.chat.prompt(asked))

    def save(self, file: Path | None = None) -> None:
        """Write the chat to a file, or to its own if it has one.

        Raises:
            UserError: If it can't be written.
        """
        file = file or self.file
        if file is not None:
            write_history(file, self.model, self.chat.rounds, self.examples)

    def begin_file(self) -> None:
        """Leave the chat's file as it is, and go on in another one; a file that the user named is written over."""
        if self.settings.history is None and self.file is not None:
            self.file = new_file(self.model)
        else:
            self.save()

    def ask(self, question: str, *, raw: bool = False) -> None:
        """Answer a question about the waiting pictures, on the screen, and save the chat.

        Raises:
            UserError: If there is no room for it; the pictures go on waiting.
        """
        asked = self.chat.next_round(question, raw=raw)
        stops = Stops(self.processor.tokenizer, self.settings.stop)
        writer = AnswerWriter(stops, self.settings.stop, self.terminal.write)
        ends = self.processor.end_token_ids
        made: list[int] = []

        def heed(ids: list[int]) -> None:
            made[:] = ids
            writer.take(ids[:-1] if ids[-1] in ends else ids)

        start = time.perf_counter()
        stopped = False
        try:
            answer = self._generate(asked, heed)
            writer.end(answer)
        except KeyboardInterrupt:
            if not self.terminal.interactive:
                raise
            stopped, answer = True, writer.written
        self.terminal.end_answer()
        if stopped and not answer:
            self.terminal.say("stopped before the first word: the question is not kept, its pictures wait for another")
            return
        seconds = time.perf_counter() - start
        asked = replace(asked, answer=answer, tokens=len(made), seconds=seconds)
        self._count(asked, self._why(made, stopped))
        self.chat.rounds.append(asked)
        self.chat.pending.clear()
        self.save()

    def _generate(self, asked: Round, heed: Any) -> str:
        prompt = self.chat.prompt(asked)
        try:
            (answer,) = self.generator.generate(
                [prompt], max_new_tokens=self.settings.max_new_tokens, stop=self.settings.stop, heed=heed
            )
        except ContextTooShort as error:
            drop = ["/undo or /clear drops earlier rounds"] if self.chat.turns and self.chat.rounds else []
            drop += ["/shots none drops the examples"] if self.chat.examples else []
            drop += ["/tiles shows what pictures take"] if prompt.images else []
            drop += ["--max-new-tokens makes answers shorter"]
            raise UserError(
                f"this needs {error.needed:,} tokens with its answer, and the model takes "
                f"{self.generator.max_context:,}: {', '.join(drop)}; nothing is lost, the pictures wait"
            ) from None
        if isinstance(answer, UserError):
            raise answer
        return answer

    def _why(self, made: Sequence[int], stopped: bool) -> str:
        """Return why an answer ended, if not by the model's own will."""
        if stopped:
            return "; stopped by Ctrl-C"
        if made and made[-1] in self.processor.end_token_ids:
            return ""
        if len(made) == self.settings.max_new_tokens:
            return f"; cut at {len(made)} tokens, --max-new-tokens allows more"
        return "; ended at a stop string" if self.chat.turns else ""

    def _count(self, asked: Round, why: str) -> None:
        prompt = self.count_tokens(replace(asked, answer=""))
        speed = asked.tokens / asked.seconds if asked.seconds else 0.0
        self.terminal.say(
            f"[{counted(asked.tokens, 'token')} in {asked.seconds:.1f} s, {speed:.0f}/s; the prompt has {prompt:,} of "
            f"{self.generator.max_context:,}{why}]"
        )

    def _resume(self, model: str, rounds: list[Round], examples: tuple[Path, int, str] | None) -> None:
        if examples is not None:
            place, count, digest = examples
            shown = read_examples(place)[:count]
            if hash_examples(shown) != digest:
                raise UserError(
                    f"{place}: the examples of the chat {self.file} have changed since: put the old ones back, or "
                    "begin another chat"
                )
            self.chat.examples, self.examples = shown, examples
        self.chat.rounds = rounds
        of = "" if model == self.model else f", begun with {model}"
        self.terminal.say(f"{counted(len(rounds), 'round')} of {self.file}{of}")
        self.terminal.remember(one.question for one in rounds)


def read_picture(path: Path) -> Image:
    """Return the picture of a file, its bytes read.

    Raises:
        UserError: If it is not a readable picture.
    """
    absolute = path.absolute()
    data = Image(path=str(absolute)).read()
    try:
        decode_image(data)
    except ImageError as error:
        raise UserError(f"{path}: {error}: name a PNG, JPEG, WebP or similar file") from None
    return Image(data, str(absolute))
