"""How likely the model finds each of several answers: the likelihoods that `mm1 evaluate` compares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mm1.document import Document
from mm1.errors import UserError
from mm1.evaluate.models.generator import ContextTooShort
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.processing.answers import following
from mm1.serve.inputs import too_long
from mm1.serve.problems import Problem


def scores(generator: MM1Generator, document: Document, alternatives: Sequence[str]) -> dict[str, Any]:
    """Return the likelihood of each alternative after a prompt, as JSON.

    Args:
        generator: The model.
        document: The prompt.
        alternatives: Texts that may follow it; see `mm1.processing.answers.following`.

    Returns:
        `scores`, in the order of `alternatives`: `text`; `log_likelihood`, the sum over its tokens (natural logarithm);
        `per_character`, that sum over its characters without white space at the ends, as benchmarks compare options of
        unequal length; `tokens`; `greedy`, whether each of its tokens is the likeliest. `likeliest`: the index of the
        highest `log_likelihood`.

    Raises:
        Problem: If the prompt with an alternative is too long, or a picture can't be read.
    """
    texts = [following(generator.processor, document, text) for text in alternatives]
    try:
        found = generator.log_likelihoods([document] * len(texts), texts)
    except ContextTooShort as error:
        raise too_long(error.needed, generator.max_context) from None
    except UserError as error:
        raise Problem(400, str(error)) from None
    rows: list[dict[str, Any]] = []
    for given, text, one in zip(alternatives, texts, found, strict=True):
        if one.error is not None:
            raise Problem(400, str(one.error), code="invalid_image")
        if not math.isfinite(one.total):
            raise Problem(400, f"alternatives: the model can't write '{text[:80]}': leave it out", param="alternatives")
        ids = generator.processor.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        rows.append(
            {
                "text": given,
                "log_likelihood": one.total,
                "per_character": one.total / max(1, len(text.strip())),
                "tokens": len(ids),
                "greedy": one.greedy,
            }
        )
    totals = [one.total for one in found]
    return {"scores": rows, "likeliest": totals.index(max(totals))}
