"""An adapter with which lm-eval (github.com/EleutherAI/lm-evaluation-harness) scores every model that we load.

    lm_eval --model mm1 --model_args pretrained=runs/demo --tasks hellaswag

Versions of lm-eval after 0.4.13 find it by the entry point in `pyproject.toml`; for older ones an import of this module
registers it. A model that was fine-tuned on conversations gets them with `--apply_chat_template`. Decoding is greedy,
in one process.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from mm1.document import Document
from mm1.errors import UserError
from mm1.evaluate.models.harness import answers, harness_conversation, harness_prompt
from mm1.evaluate.models.loading import load_generator

_log = logging.getLogger(__name__)

_NEW_TOKENS = 256
"""Used for tasks without `max_gen_toks`; the library's own default."""


class Conversation(str):
    """The turns of a prompt as JSON: lm-eval hands prompts on as text."""


@register_model("mm1")
class LmEvalAdapter(LM):
    """A model in the interface of lm-eval.

    Args:
        pretrained: Name of a model (see `mm1.places.MODEL_HELP`).
        batch_size: Prompts per forward pass.
        device: `auto`, or a torch device; `cuda:0`, lm-eval's default, is `auto` on a machine without one.
        dtype: `auto`, or a torch dtype's name.
        max_batch_size: Given by lm-eval; unused.
    """

    MULTIMODAL = True

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 64,
        device: str = "auto",
        dtype: str = "auto",
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if device == "cuda:0" and not torch.cuda.is_available():  # lm-eval passes it where the user names none
            device = "auto"
        batch_size = 64 if str(batch_size).startswith("auto") else int(batch_size)
        self._generator = load_generator(pretrained, batch_size=batch_size, device=device, dtype=dtype)
        self._pretrained = pretrained
        self._advised = False

    @property
    def tokenizer_name(self) -> str:
        """The model's name, by which lm-eval tells stored conversations apart."""
        return self._pretrained.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the model's chat template for lm-eval's record; None for a model without one."""
        return getattr(self._generator.processor, "chat_template", None) if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return a conversation, which the chat template is laid over when the model is asked.

        Args:
            chat_history: Turns, each with its `role` and its text as `content`.
            add_generation_prompt: Whether the answer is the model's from its first word; it must be.

        Raises:
            UserError: If the model was not fine-tuned on conversations, or the task begins answers itself.
        """
        if not self._generator.takes_turns:
            raise UserError(
                f"{self._pretrained}: not an MM1 model that was fine-tuned on conversations: leave "
                "--apply_chat_template out"
            )
        turns = [{"role": turn["role"], "content": turn["content"]} for turn in chat_history]
        harness_conversation(turns, (), "a prompt")  # an error before anything is scored
        return Conversation(json.dumps(turns, ensure_ascii=False))

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return the likelihoods for requests `(context, continuation)`, or with pictures as the third."""
        prompts = [self._prompt(request) for request in requests]
        found = self._generator.log_likelihoods(prompts, [str(request.args[1]) for request in requests])
        return [(one.total, one.greedy) for one in found]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihoods of whole texts, requests `(text,)`, after BOS.

        Raises:
            UserError: If a text is longer than the model's context.
        """
        prompts = [Document(str(number), "text", ()) for number in range(len(requests))]
        found = self._generator.log_likelihoods(prompts, [str(request.args[0]) for request in requests])
        return [one.total for one in found]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the answers to requests `(context, settings)`, or with pictures as the third.

        Raises:
            UserError: If a request asks for sampling.
        """
        settings = [request.args[1] for request in requests]
        most = [int(own.get("max_gen_toks") or _NEW_TOKENS) for own in settings]
        return answers(self._generator, [self._prompt(request) for request in requests], settings, most)

    def _prompt(self, request: Any) -> Document:
        context, _, *more = request.args
        visuals = more[0].get("visual", []) if more else []
        where = f"{request.task_name} {request.doc_id}"
        if isinstance(context, Conversation):
            turns: list[Mapping[str, str]] = json.loads(context)
            return harness_conversation(turns, visuals, where)
        if self._generator.takes_turns and not self._advised:
            self._advised = True
            _log.warning(
                "%s was fine-tuned on conversations and is asked without: add --apply_chat_template", self._pretrained
            )
        return harness_prompt(context, visuals, where)
