"""Rules that derive further fields from a row, one rule per dataset.

The rules for text are those of the language model evaluation harness (github.com/EleutherAI/lm-evaluation-harness,
0.4.13), so that text scores are comparable with published ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mm1.errors import UserError
from mm1.evaluate.tasks.options import option_lines

Fields = Mapping[str, Any]


def _arc(row: Fields) -> dict[str, Any]:
    """ARC: options and labels are together in `choices`, and labels may be letters or numbers."""
    labels = list(row["choices"]["label"])
    return {"choice_texts": list(row["choices"]["text"]), "choice_index": labels.index(row["answerKey"])}


def _hellaswag(row: Fields) -> dict[str, Any]:
    """HellaSwag: the context comes from three columns; the marks of the WikiHow part are removed."""
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    endings = [_without_marks(ending) for ending in row["endings"]]
    return {"context": _without_marks(context), "choice_texts": endings, "choice_index": int(row["label"])}


def _without_marks(text: str) -> str:
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _lambada(row: Fields) -> dict[str, Any]:
    """LAMBADA: the last word is the answer."""
    context, _, word = row["text"].rpartition(" ")
    return {"context": context, "choice_texts": [word], "choice_index": 0}


def _mathvista(row: Fields) -> dict[str, Any]:
    """MathVista: unit and options follow the question; a number is written with its decimals.

    The question has the form of the official evaluation (github.com/lupantech/MathVista), without the hint on the
    answer's form.
    """
    unit = f" (Unit: {row['unit']})" if row.get("unit") else ""
    lines = option_lines(row["choices"] or ())
    truth = row["answer"]
    if row["answer_type"] == "float":
        truth = f"{float(truth):.{int(row['precision'])}f}"
    return {"asked": row["question"] + unit + (f"\n{lines}" if lines else ""), "truth": truth}


def _mmbench(row: Fields) -> dict[str, Any]:
    """MMBench: a hint may precede the question; the indices of a question's circular orders differ by millions."""
    hint = "" if row["hint"] in (None, "", "nan") else f"{row['hint']} "
    return {"asked": hint + row["question"], "circle": int(row["index"]) % 1_000_000}


def _sciq(row: Fields) -> dict[str, Any]:
    """SciQ: the supporting text without leading white space."""
    return {"support": row["support"].lstrip()}


def _webqs(row: Fields) -> dict[str, Any]:
    """WebQuestions: the accepted answers, without those that begin with another one, which they contain."""
    kept: list[str] = []
    for answer in sorted(row["answers"]):
        if not kept or not answer.startswith(kept[-1]):
            kept.append(answer)
    return {"choice_texts": kept}


def _winogrande(row: Fields) -> dict[str, Any]:
    """WinoGrande: an option fills the blank in the sentence, and the rest of the sentence is scored."""
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
    "mathvista": _mathvista,
    "mmbench": _mmbench,
    "sciq": _sciq,
    "webqs": _webqs,
    "winogrande": _winogrande,
}


def derived(rule: str, row: Fields, where: str) -> dict[str, Any]:
    """Return the further fields that a rule derives from a row.

    Args:
        rule: The rule's name.
        row: The row's fields.
        where: The row, for messages.

    Raises:
        UserError: If the row doesn't have the form that the rule expects.
    """
    try:
        return _RULES[rule](row)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{where}: the row doesn't have the form that rule '{rule}' expects ({type(error).__name__}: {error}): "
            "check `derive` in the task"
        ) from None
