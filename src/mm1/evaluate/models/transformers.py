"""Scores any image-text-to-text model of `transformers` that takes several pictures.

The prompt is one user turn of the processor's chat template, or plain text with the processor's image token if there is
no template. Its tokens are the library's (`apply_chat_template`, or the processor's call), so one BOS begins it where
the family has one. A batch has prompts of equal length in tokens, so nothing is padded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from mm1.document import Document, Image
from mm1.errors import UserError
from mm1.evaluate.distributed import own_group
from mm1.evaluate.models.divided import FirstRanksChoice
from mm1.evaluate.models.generator import Advance, Answer, ContextTooShort, Likelihood
from mm1.evaluate.models.stops import Stops
from mm1.processing.images import ImageError, decode_image


class TransformersGenerator:
    """Greedy generation with a model and its processor.

    Args:
        model: An `AutoModelForImageTextToText`; it is put into evaluation mode on `device`.
        processor: The model's processor.
        batch_size: The most prompts per call.
        device: The device to compute on.
        chat: Whether a prompt is a user turn. Default: true if the processor has a chat template.

    Raises:
        UserError: If prompts are plain and the processor has no token for a picture.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        batch_size: int = 8,
        device: str | torch.device = "cpu",
        chat: bool | None = None,
    ) -> None:
        self.model = model.eval().to(device)
        self.processor = processor
        self.batch_size = batch_size
        group = own_group()
        self._choice = LogitsProcessorList([FirstRanksChoice(group)] if group.size > 1 else [])
        self.device = torch.device(device)
        self.chat = bool(processor.chat_template) if chat is None else chat
        if not self.chat and getattr(processor, "image_token", None) is None:
            raise UserError(
                f"{type(processor).__name__} has no image token, so a plain prompt can't show it pictures: "
                + ("leave --plain out" if processor.chat_template else "models need that or a chat template")
            )
        own, tokenizer = model.generation_config, processor.tokenizer
        eos = tokenizer.eos_token_id if own.eos_token_id is None else own.eos_token_id
        pad = tokenizer.pad_token_id if own.pad_token_id is None else own.pad_token_id
        if pad is None:  # answers that end before others of their batch are padded, with nothing to be read
            pad = eos[0] if isinstance(eos, list) else eos
        # A new configuration, since a published one may sample or penalise repetition.
        self._settings = {"do_sample": False, "eos_token_id": eos, "pad_token_id": pad}

    @property
    def takes_turns(self) -> bool:
        """False: a prompt becomes the user's turn here."""
        return False

    @property
    def protocol(self) -> dict[str, str]:
        """The keys of a result's protocol that describe the model."""
        return {
            "adapter": "chat template" if self.chat else "plain prompt",
            "tokens": "one BOS, a continuation with its context",
            "dtype": str(self.model.dtype),
        }

    @property
    def max_context(self) -> int:
        """Tokens that the decoder has positions for."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    def count_tokens(self, prompt: Document) -> int:
        """Return the number of tokens of a prompt, including image tokens."""
        return int(self._inputs([prompt])["input_ids"].shape[1])

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Document],
        *,
        max_new_tokens: int,
        stop: Sequence[str],
        advance: Advance | None = None,
    ) -> list[Answer]:
        """Return each prompt's greedy continuation; see `mm1.evaluate.models.generator.Generator`."""
        answers: list[Answer] = [""] * len(prompts)
        by_length: defaultdict[int, list[int]] = defaultdict(list)
        for index, prompt in enumerate(prompts):
            try:
                length = self.count_tokens(prompt)
            except (ImageError, UserError) as error:
                answers[index] = UserError(str(error))
                if advance:
                    advance(1)
                continue
            if length + max_new_tokens > self.max_context:
                raise ContextTooShort(index, length + max_new_tokens, self.max_context)
            by_length[length].append(index)
        for _, indices in sorted(by_length.items()):
            for start in range(0, len(indices), self.batch_size):
                batch = indices[start : start + self.batch_size]
                texts = self._continue([prompts[index] for index in batch], max_new_tokens, stop)
                for index, text in zip(batch, texts, strict=True):
                    answers[index] = text
                if advance:
                    advance(len(batch))
        return answers

    @torch.inference_mode()
    def log_likelihoods(
        self, prompts: Sequence[Document], continuations: Sequence[str], *, advance: Advance | None = None
    ) -> list[Likelihood]:
        """Return the likelihood of each continuation after its prompt, which is plain text without pictures.

        Raises:
            ContextTooShort: If a prompt with its continuation doesn't fit.
            UserError: If a prompt has a picture.
        """
        likelihoods = []
        for index, (prompt, text) in enumerate(zip(prompts, continuations, strict=True)):
            if prompt.images:
                raise UserError(
                    f"prompt '{prompt.id}' has a picture, and likelihoods of this model need text only: choose a task "
                    "that generates answers"
                )
            before, after = self._encode_pair(prompt.text, text)
            if len(before) + len(after) > self.max_context:
                raise ContextTooShort(index, len(before) + len(after), self.max_context)
            ids = torch.tensor([[*before, *after]], device=self.device)
            logits = self.model(input_ids=ids).logits[0, len(before) - 1 : -1].float()
            targets = ids[0, len(before) :]
            by_token = logits.log_softmax(dim=-1).gather(-1, targets[:, None])
            greedy = bool((logits.argmax(dim=-1) == targets).all())
            likelihoods.append(Likelihood(float(by_token.double().sum()), greedy))
            if advance:
                advance(1)
        return likelihoods

    def _continue(self, prompts: Sequence[Document], max_new_tokens: int, stop: Sequence[str]) -> list[str]:
        inputs = self._inputs(prompts).to(self.device)
        inputs = {k: v.to(self.model.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        start = inputs["input_ids"].shape[1]
        stops = Stops(self.processor.tokenizer, stop)

        def ended(ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
            """Return for each row whether its new text has a stop string."""
            return torch.tensor([stops.found(row) for row in ids[:, start:].tolist()], device=ids.device)

        output = self.model.generate(
            **inputs,
            generation_config=GenerationConfig(**self._settings, max_new_tokens=max_new_tokens),
            logits_processor=self._choice,
            stopping_criteria=StoppingCriteriaList([ended]),
        )
        return [stops.text(row) for row in output[:, start:].tolist()]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Return the tokens of a context and those of its continuation, as lm-evaluation-harness makes them (0.4.13).

        Both are tokenized as one text, and white space at the end of the context belongs to the continuation. Tokenized
        alone, the continuation may get other tokens: many tokenizers put a space before every text.
        """
        tokenizer = self.processor.tokenizer
        end = len(context.rstrip())
        before: list[int] = tokenizer(context[:end])["input_ids"]
        after: list[int] = tokenizer(context + continuation)["input_ids"][len(before) :]
        if not after:  # the context's last token includes the whole continuation
            after = tokenizer(context[end:] + continuation, add_special_tokens=False)["input_ids"]
        return before or [self._start], after

    @property
    def _start(self) -> int:
        """The token before an empty prompt if the tokenizer adds none: BOS, else EOS, as in the harness.

        Raises:
            UserError: If the tokenizer has neither.
        """
        tokenizer = self.processor.tokenizer
        for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        raise UserError(
            f"{type(tokenizer).__name__} has neither a BOS nor an EOS token, and an empty prompt must start with one"
        )

    def _inputs(self, prompts: Sequence[Document]) -> Any:
        images = [[decode_image(image.read()) for image in prompt.images] for prompt in prompts]
        if self.chat:
            turns = [self._turn(prompt, pictures) for prompt, pictures in zip(prompts, images, strict=True)]
            return self.processor.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        texts = [self._plain(prompt) for prompt in prompts]
        inputs = self.processor(text=texts, images=images if any(images) else None, return_tensors="pt")
        if inputs["input_ids"].shape[1] == 0:
            ids = torch.full((len(prompts), 1), self._start)
            inputs.update({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        return inputs

    def _plain(self, prompt: Document) -> str:
        token = self.processor.image_token
        return "".join(token if isinstance(part, Image) else part.text for part in prompt.parts)

    def _turn(self, prompt: Document, pictures: Sequence[Any]) -> list[dict[str, Any]]:
        """Return a prompt as a conversation of one turn, its pictures decoded."""
        remaining = iter(pictures)
        content = [
            {"type": "image", "image": next(remaining)}
            if isinstance(part, Image)
            else {"type": "text", "text": part.text}
            for part in prompt.parts
        ]
        return [{"role": "user", "content": content}]
