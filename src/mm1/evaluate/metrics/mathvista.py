"""MathVista: the right option, or the right number at the precision that the question asks for.

Lu et al., "MathVista" (ICLR 2024). Its rule converts an answer to the reference's form and then compares the two as
strings. The benchmark first extracts the answer from longer text with a language model; mm1 does not, so anything but
the answer itself is wrong here.
"""

from __future__ import annotations

from collections.abc import Sequence

from mm1.evaluate.metrics.metric import Metric, per_choice
from mm1.evaluate.metrics.multiple_choice import multiple_choice


def mathvista(prediction: str, references: Sequence[str], options: Sequence[str] = ()) -> float:
    """Return 1.0 if the answer is the reference, else 0.0.

    Args:
        prediction: What the model wrote.
        references: The right option's letter and words; or a single one: an integer ("14": the answer is truncated to
            an integer), a number with decimals ("1.20": the answer is rounded to as many decimals), or any other text,
            which the answer must equal exactly.
        options: The words of all options.
    """
    if options or len(references) > 1:
        return multiple_choice(prediction, references, options)
    given, truth = prediction.strip(), references[0].strip()
    if not given:
        return 0.0
    try:
        target = float(truth)
    except ValueError:
        return float(given == truth)
    try:
        value = float(given)
        _, _, decimals = truth.partition(".")
        return float((round(value, len(decimals)) if decimals else int(value)) == target)
    except (ValueError, OverflowError):  # not a number; infinite
        return 0.0


MATHVISTA = Metric(
    "mathvista",
    "accuracy",
    "MathVista's normalisation and comparison (Lu et al. 2024), without extraction by a language model",
    per_choice(mathvista),
    reads_options=True,
)
