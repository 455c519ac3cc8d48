"""An adapter with which lmms-eval (github.com/EvolvingLMMs-Lab/lmms-eval, 0.7) scores every model that we load.

    lmms-eval --model mm1 --model_args pretrained=runs/demo --tasks pope

lmms-eval finds the adapter by the entry point in `pyproject.toml`. It scores zero-shot with its own prompts and
metrics. A model that was fine-tuned on conversations gets the prompt as the user's turn. Decoding is greedy, in one
process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmms_eval.api.model import lmms

from mm1.document import Document
from mm1.evaluate.models.harness import answers, harness_conversation, harness_prompt
from mm1.evaluate.models.loading import load_generator

_NEW_TOKENS = 64
"""Used for tasks without `max_new_tokens`; enough for a caption, the longest answer of such a task."""


def manifest() -> Any:
    """Return the entry that lmms-eval registers."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("mm1", simple_class_path=f"{__name__}.LmmsEvalAdapter")


class LmmsEvalAdapter(lmms):
    """A model in the interface of lmms-eval.

    Args:
        pretrained: Name of a model (see `mm1.places.MODEL_HELP`).
        batch_size: Prompts per forward pass.
        device: `auto`, or a torch device.
        dtype: `auto`, or a torch dtype's name.
        max_batch_size: Given by lmms-eval; unused.
    """

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 64,
        device: str = "auto",
        dtype: str = "auto",
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self._generator = load_generator(pretrained, batch_size=int(batch_size), device=device, dtype=dtype)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return the answers to requests `(context, settings, doc_to_visual, doc_id, task, split)`.

        Raises:
            UserError: If a request asks for sampling, or shows something other than pictures.
        """
        prompts = [self._prompt(request.args[0], *request.args[2:]) for request in requests]
        settings = [request.args[1] for request in requests]
        most = [int(own.get("max_new_tokens") or _NEW_TOKENS) for own in settings]
        return answers(self._generator, prompts, settings, most)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return the likelihoods for requests `(context, continuation, doc_to_visual, doc_id, task, split)`."""
        prompts, texts = [], []
        for request in requests:
            context, continuation, doc_to_visual, doc_id, task, split = request.args
            if callable(continuation):
                continuation = continuation(self.task_dict[task][split][doc_id])
            prompts.append(self._prompt(context, doc_to_visual, doc_id, task, split))
            texts.append(str(continuation))
        return [(found.total, found.greedy) for found in self._generator.log_likelihoods(prompts, texts)]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Raise an error: conversations of several rounds are not supported."""
        raise NotImplementedError("the adapter mm1 supports tasks of one round only")

    def _prompt(self, context: str, doc_to_visual: Any, doc_id: int, task: str, split: str) -> Document:
        visuals = doc_to_visual(self.task_dict[task][split][doc_id]) or []
        if self._generator.takes_turns:
            return harness_conversation([{"role": "user", "content": context}], visuals, f"{task} {doc_id}")
        return harness_prompt(context, visuals, f"{task} {doc_id}")
