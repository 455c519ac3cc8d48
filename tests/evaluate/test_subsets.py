"""Scores of parts of a task's items."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mm1.corpora.conventions import CONVENTIONS
from mm1.corpora.rounds import HELD_OUT
from mm1.errors import UserError
from mm1.evaluate.score_table import score_table
from mm1.evaluate.tasks.task import load_task

from .test_evaluate_model import Oracle, run, task

SUBSETS = {"colours": {"question": ["what color is it?"]}, "of the first half": {"half": [0]}, "none": {"half": [7]}}


class Colourblind(Oracle):
    """Right about everything but colours."""

    def generate(self, prompts, *, max_new_tokens, stop, advance=None):
        answers = super().generate(prompts, max_new_tokens=max_new_tokens, stop=stop)
        asked = [prompt.parts[-1].text for prompt in prompts]
        return ["?" if "what color" in text else answer for text, answer in zip(asked, answers, strict=True)]


def test_subsets_are_scored_apart(squares, tmp_path: Path) -> None:
    (result,) = run(Colourblind("test", 20), tmp_path, task(subsets=SUBSETS), shots=[0])
    predictions = {prediction["corpus_row"]: prediction["score"] for prediction in result["predictions"]}
    colours, half, none = (result["subsets"][name] for name in SUBSETS)
    assert (colours["score"], colours["interval"], colours["items"]) == (0.0, [0.0, 0.0], 7)
    assert half["score"] == pytest.approx(np.mean([score for row, score in predictions.items() if row % 2 == 0]))
    assert half["interval"][0] <= half["score"] <= half["interval"][1]
    assert none == {"score": None, "interval": None, "items": 0}
    printed = Console(file=StringIO(), width=100)
    printed.print(score_table([result]))
    table = printed.file.getvalue()  # type: ignore[attr-defined]
    assert all(name in table for name in SUBSETS)
    assert "colours 0.0" in (tmp_path / "squares.0-shot.html").read_text()


def test_a_result_is_made_again_when_its_subsets_change(squares, tmp_path: Path) -> None:
    oracle = Oracle("test", 20)
    (before,) = run(oracle, tmp_path, task(), shots=[0])
    assert "subsets" not in before
    assert "subsets" not in before["protocol"]
    (after,) = run(oracle, tmp_path, task(subsets=SUBSETS), shots=[0])
    assert after["subsets"]["colours"]["score"] == 1.0


def test_a_field_that_items_lack(squares, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no field 'colour': name one of answer, color, half, question"):
        run(Oracle("test", 20), tmp_path, task(subsets={"red": {"colour": ["red"]}}), shots=[0])


def test_groups_of_items_have_no_subsets() -> None:
    with pytest.raises(ValueError, match="leave one out"):
        task(subsets=SUBSETS, together="half")


def test_the_packaged_subsets_are_those_of_the_corpus() -> None:
    for name in ("rounds", "pages-plain"):
        subsets = {key: tuple(of["convention"]) for key, of in load_task(name).subsets.items()}
        held_out = subsets["conventions held out of rounds"]
        assert held_out == HELD_OUT
        assert {*subsets["conventions in rounds"], *held_out} == {convention.name for convention in CONVENTIONS}
