"""Fields that a task's data has only between the lines: small rules, one a data set.

The rules are those of the language model evaluation harness (github.com/EleutherAI/lm-evaluation-harness),
so that text scores can be set beside published ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mm1.errors import UserError

Fields = Mapping[str, Any]


def _arc(row: Fields) -> dict[str, Any]:
    """ARC: options and labels lie together in `choices`, and labels may be letters or numbers."""
    labels = list(row["choices"]["label"])
    return {"choice_texts": list(row["choices"]["text"]), "choice_index": labels.index(row["answerKey"])}


def _hellaswag(row: Fields) -> dict[str, Any]:
    """HellaSwag: context from three columns; marks of the WikiHow part are taken out."""
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    endings = [_without_marks(ending) for ending in row["endings"]]
    return {"context": _without_marks(context), "choice_texts": endings, "choice_index": int(row["label"])}


def _without_marks(text: str) -> str:
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _lambada(row: Fields) -> dict[str, Any]:
    """LAMBADA: the last word is to be found."""
    context, _, word = row["text"].rpartition(" ")
    return {"context": context, "choice_texts": [word], "choice_index": 0}


def _winogrande(row: Fields) -> dict[str, Any]:
    """WinoGrande: the blank divides the sentence; either option fills it, the rest of the sentence is scored."""
    before, _, after = row["sentence"].partition("_")
    texts = [row["option1"], row["option2"]]
    return {
        "before": before,
        "after": after.strip(),
        "choice_texts": texts,
        "choice_index": int(row["answer"]) - 1,
    }


_RULES: dict[str, Callable[[Fields], dict[str, Any]]] = {
    "arc": _arc,
    "hellaswag": _hellaswag,
    "lambada": _lambada,
    "winogrande": _winogrande,
}


def derived(rule: str, row: Fields, where: str) -> dict[str, Any]:
    """Return the further fields that a rule makes from a row's.

    Args:
        rule: Its name.
        row: The row's fields.
        where: The row, for messages.

    Raises:
        UserError: If the row lacks what the rule reads.
    """
    try:
        return _RULES[rule](row)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: not as rule '{rule}' expects it ({type(error).__name__}: {error})") from None
