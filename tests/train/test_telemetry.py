"""What a training says about itself: speed, utilisation, loss spikes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mm1.model import MM1ForConditionalGeneration
from mm1.model.sizes import flops_per_step, unit_flops
from mm1.plan.loader import TrainingBatch
from mm1.plan.plan import Plan
from mm1.progress import console
from mm1.recipe import load_recipe
from mm1.train import telemetry
from mm1.train.efficiency import peak_flops
from mm1.train.loop import Trainer
from mm1.train.objective import Losses
from mm1.train.pretrain import pretrain
from mm1.train.telemetry import SPIKE_MINIMUM, SpikeWatch, Terminal, Window
from tests.conftest import breaking_at


def lines_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("micro", [4, 1])
def test_flops_are_those_of_what_the_plan_holds(recipe_file: Path, data: Path, tmp_path: Path, micro: int) -> None:
    run = tmp_path / "run"
    pretrain(load_recipe(str(recipe_file), [f"train.micro_batch_size={micro}"]), run)
    lines, plan = lines_of(run), Plan(run / "plan")
    lengths = plan.length.astype(np.int64)
    units = unit_flops(MM1ForConditionalGeneration.from_pretrained(run / "model"))
    expected = flops_per_step(
        units,
        tokens=plan.info["tokens"],
        pairs=int((lengths * (lengths + 1) // 2).sum()),
        target_tokens=sum(kind["target_tokens"] for kind in plan.info["kinds"].values()),
        images=plan.info["images"],
    )
    seconds = np.diff([0.0] + [line["time"] for line in lines])
    done = sum(line["flops_per_second"] * t for line, t in zip(lines, seconds, strict=True))
    assert done == pytest.approx(sum(expected.values()), rel=1e-6)
    environment = json.loads((run / "environment.json").read_text())
    assert "measured" in environment["peak_flops_from"]
    for line in lines:
        assert line["mfu"] == pytest.approx(line["flops_per_second"] / environment["peak_flops"])
        assert 0 < line["mfu"] < 1


def test_the_peak_of_a_cpu_is_what_a_large_product_reaches() -> None:
    began = time.perf_counter()
    peak, how = peak_flops(torch.device("cpu"), None)
    assert time.perf_counter() - began < 2  # a crowded machine; alone it is a third of a second
    assert "1024 x 1024" in how
    matrix = torch.rand(256, 256)
    began = time.perf_counter()
    for _ in range(10):
        matrix = (matrix @ matrix).clamp(0, 1)
    assert 10 * 2 * 256**3 / (time.perf_counter() - began) < 3 * peak


def test_a_gpus_peak_is_its_makers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    peak, how = peak_flops(torch.device("cuda"), torch.bfloat16)
    assert peak == pytest.approx(989e12, rel=0.01)
    assert how == "stated for NVIDIA H100 80GB HBM3"


def test_a_spike_is_seven_deviations_above(capfd: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).normal(2.0, 0.1, SPIKE_MINIMUM)
    mean, deviation = noise.mean(), noise.std()
    for deviations, spike in ((6.9, False), (7.1, True), (-20, False)):
        watch = SpikeWatch(noise.tolist())
        assert watch.is_spike(mean + deviations * deviation, 101) is spike
    assert SpikeWatch(noise.tolist()[1:]).is_spike(1e9, 100) is False  # too little to judge by
    watch = SpikeWatch(noise.tolist())
    assert watch.is_spike(float("nan"), 101) is False
    assert len(watch.losses) == SPIKE_MINIMUM


def test_a_row_of_spikes_is_said_once() -> None:
    watch = SpikeWatch(np.random.default_rng(0).normal(2.0, 0.1, 1000).tolist())
    with console.capture() as said:
        found = [watch.is_spike(loss, 1001 + i) for i, loss in enumerate([9.0, 9.5, 2.0, 30.0])]
    assert found == [True, True, False, True]
    assert said.get().count("loss spike") == 2
    assert "step 1,001: loss spike: 9.00, after 1,000 steps with a loss of 2.0" in " ".join(said.get().split())


def test_spikes_are_counted_in_the_log_and_after_going_on(
    recipe_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = Trainer.backward

    def spiking(self: Trainer, batch: TrainingBatch, number: int, count: float) -> Losses:
        losses = backward(self, batch, number, count)
        losses.by_kind *= 100 if number in (7, 10) else 1  # what is logged, not what is learned from
        return losses

    monkeypatch.setattr(Trainer, "backward", spiking)
    monkeypatch.setattr(telemetry, "SPIKE_MINIMUM", 5)
    recipe = load_recipe(str(recipe_file))
    pretrain(recipe, tmp_path / "whole")
    counted = [line["loss_spikes"] for line in lines_of(tmp_path / "whole")]
    assert counted == [0] * 7 + [1] * 5  # the second lies within what the first has stirred up
    with breaking_at(6):
        pretrain(recipe, tmp_path / "broken")
    pretrain(recipe, tmp_path / "broken")
    assert [line["loss_spikes"] for line in lines_of(tmp_path / "broken")] == counted


def test_a_line_in_the_terminal() -> None:
    window = Window(time=2.0, waited=0.5, tokens=3000, images=40, flops=6e9)
    window.add_losses([6.0, 4.0, 0.0, 0.0, 3.0, 1.0, 0.0, 0.0])
    line = {"step": 10, **window.line(peak_flops=1e10)}
    assert line["loss"] == 2.5
    with console.capture() as said:
        terminal = Terminal()
        note = terminal.note(line, 100)
        terminal.note(line, 100)
    expected = "loss caption 2.00 interleaved 4.00 · 1,500 tokens/s · 20 images/s · MFU 30.0% · data wait 25%"
    assert note == expected
    # Without a terminal to draw the bar in, a line is printed, though not every time.
    assert said.get() == f"step 10 of 100: {expected}\n"
