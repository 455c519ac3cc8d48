"""The demo's time is its work in passes of a layer that is measured here."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from mm1.demo import remaining_work
from mm1.recipe import EncoderRecipe, load_recipe
from mm1.scaling import duration
from mm1.scaling.duration import Work, in_words, seconds_of_pass


def test_time_grows_with_the_work_and_with_a_slower_machine() -> None:
    work = Work(corpora=5, encoder_steps=200, steps=1600, items=7_785)
    assert work.seconds(0.02) == pytest.approx(2 * work.seconds(0.01))
    less = Work(corpora=0, encoder_steps=0, steps=100, items=0)
    assert less.seconds(0.02) == pytest.approx(100 * duration.STEP * 0.02)
    assert work.seconds(0.0242) == pytest.approx(387, rel=0.2)  # two cores with AVX512-BF16: 6 min 27 s


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_pass_is_measured_in_the_time_given(dtype: torch.dtype | None) -> None:
    state = torch.get_rng_state()
    began = time.perf_counter()
    seconds = seconds_of_pass(dtype, measured_for=0.05)
    assert 0 < seconds < time.perf_counter() - began
    assert torch.equal(torch.get_rng_state(), state)  # the runs that follow have their own random numbers


@pytest.mark.parametrize(
    ("seconds", "words"), [(20, "less than a minute"), (62, "about 1 minute"), (130, "about 2 minutes")]
)
def test_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_what_is_done_already_takes_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    recipe, encoder = load_recipe("demo"), load_recipe("clip-demo", schema=EncoderRecipe)
    run, tower = tmp_path / "demo", tmp_path / "clip-demo"
    assert remaining_work(recipe, run, encoder, tower) == Work(5, 200, 1600, 7_785)
    assert remaining_work(recipe, run, encoder, None).encoder_steps == 0
    for made in (tmp_path / "data" / "scenes" / "corpus.json", tower / "model" / "config.json"):
        made.parent.mkdir(parents=True)
        made.write_text("{}")
    assert remaining_work(recipe, run, encoder, tower) == Work(4, 0, 1600, 7_785)
