"""A made-up run directory, as training and evaluation write it."""

import base64
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mm1.recipe import load_recipe

COLOURS = {"red": "#d33", "blue": "#36c", "green": "#2a4", "yellow": "#eb2"}
SHAPES = ("circle", "square", "triangle")
STEPS = 1500


def picture(colour: str, shape: str) -> str:
    """Return a 64 x 64 PNG of a shape in base64."""
    image = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(image)
    if shape == "circle":
        draw.ellipse((14, 16, 46, 48), fill=COLOURS[colour])
    elif shape == "square":
        draw.rectangle((14, 16, 46, 48), fill=COLOURS[colour])
    else:
        draw.polygon([(30, 10), (12, 50), (50, 50)], fill=COLOURS[colour])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def metrics(steps: int = STEPS) -> list[dict[str, float]]:
    """Return the training log of a run that has come as far as `steps`."""
    noise = np.random.default_rng(0)
    lines = []
    for step in range(10, steps + 1, 10):
        line: dict[str, float] = {"step": step, "time": 0.27 * step}
        for kind, end, speed in (("caption", 0.35, 250), ("interleaved", 0.9, 180), ("text", 3.4, 300)):
            if kind != "text" or noise.random() < 0.6:
                falling = end + (7.6 - end) * math.exp(-step / speed)
                line[f"loss/{kind}"] = falling * float(noise.lognormal(0, 0.12))
        line["loss"] = float(np.mean([value for key, value in line.items() if key.startswith("loss/")]))
        line |= {"learning_rate": 1e-3, "grad_norm": 0.8, "tokens": 2010 * step, "images": 43 * step}
        lines.append(line | {"tokens_per_second": 7444.0, "data_wait": 0.01})
    return lines


def plan() -> dict[str, Any]:
    """Return plan.json."""

    def row(share: float, sequences: int, fill: float) -> dict[str, Any]:
        return {
            "wanted": share,
            "obtained": round(share + 0.0001, 4),
            "sequences": sequences,
            "documents": 7 * sequences,
            "tokens": 500 * sequences,
            "target_tokens": 210 * sequences,
            "images": 11 * sequences,
            "fill": fill,
        }

    kinds = {"caption": (0.45, 2700, 0.991), "interleaved": (0.45, 2700, 0.987), "text": (0.1, 600, 0.999)}
    sources = {
        "scenes/train": "caption",
        "easy-vqa/train": "interleaved",
        "pages/train": "interleaved",
        "text/train": "text",
    }
    return {
        "hash": "5b1c9a7e0d42",
        "sequences": 6000,
        "sequence_length": 512,
        "images_per_sequence": 16,
        "batch_size": 4,
        "steps": STEPS,
        "fill": {"tokens": 0.981, "images": 0.702, "binding": 0.992},
        "kinds": {name: row(*values) for name, values in kinds.items()},
        "sources": {
            name: {"kind": kind, "sequences": 1500, "documents": 9000, "tokens": 750000, "images": 16000, "epochs": 1.7}
            for name, kind in sources.items()
        },
    }


def score(task: str, shots: int, value: float, floors: dict[str, Any], prompt: str, full: bool) -> dict[str, Any]:
    """Return one score file; `full` answers name where the thing is and its colour, else the colour alone."""
    predictions = []
    for index in range(24):
        colour, shape = list(COLOURS)[index % 4], SHAPES[index % 3]
        truth = f"a {colour} {shape} on the left" if full else colour
        wrong = truth.replace(shape, "hexagon") if full else "purple"
        right = (index * 7) % 10 < 10 * min(value, 0.85)
        predictions.append(
            {
                "id": f"{task}-{index}",
                "corpus_row": index,
                "prompt": prompt,
                "shot_ids": [],
                "prediction": truth if right else wrong,
                "answers": [truth],
                "score": float(right),
                "image": picture(colour, shape),
            }
        )
    shown: list[dict[str, str]] = []
    for index in range(1, shots + 1):
        colour, shape = list(COLOURS)[index % 4], SHAPES[index % 3]
        shown += [{"image": picture(colour, shape)}, {"text": f" {colour.upper()}\n"}]
    return {
        "task": task,
        "shots": shots,
        "metric": "cider" if full else "accuracy",
        "score": value,
        "interval": [max(0.0, value - 0.03), value + 0.025],
        "items": 1000,
        "errors": 0,
        "seed": 0,
        "also": {"exact_match": {"score": 0.79, "interval": [0.76, 0.82]}} if full else {},
        "floors": floors,
        "protocol": {
            "prompt": prompt,
            "stop": ["\n"],
            "max_new_tokens": 16,
            "shot_source": "train",
            "data_hash": "9c2f",
        },
        "example_prompt": [*shown, {"image": picture("red", "circle")}, {"text": prompt.partition("<image>")[2]}],
        "predictions": predictions,
    }


def scores() -> list[dict[str, Any]]:
    """Return the score files of three tasks at 0, 4 and 8 shots."""
    asked = "<image> Question: what color is the shape? Short answer:"
    files = []
    for shots, vqa, scenes, pages in ((0, 0.831, 1.43, 0.004), (4, 0.822, 1.46, 0.912), (8, 0.819, 1.44, 0.964)):

        def swapped(value: float) -> dict[str, Any]:
            return {"swapped pictures": {"score": value, "interval": [max(0.0, value - 0.02), value + 0.02]}}

        majority = {"majority": {"score": 0.37, "answer": "yes"}}
        files.append(score("easy-vqa", shots, vqa, majority | swapped(0.352), asked, full=False))
        files.append(score("scenes-caption", shots, scenes, swapped(0.117), "<image>", full=True))
        files.append(score("pages", shots, pages, swapped(min(0.004 + 0.03 * shots, 0.24)), "<image>", full=False))
    return files


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a run directory; its arguments replace what is written, None leaves it out."""

    def write(**replaced: Any) -> Path:
        content: dict[str, Any] = {
            "recipe": load_recipe("demo").to_yaml(),
            "environment": {
                "commit": "6437ed0c1f",
                "python": "3.11.9",
                "torch": "2.13.0+cpu",
                "transformers": "5.23.0",
                "machine": "x86_64",
                "cores": 2,
                "parameters": {
                    "vision": 850_000,
                    "connector": 61_000,
                    "language_model": 1_780_000,
                    "embeddings": 393_216,
                },
            },
            "plan": plan(),
            "metrics": "".join(json.dumps(line) + "\n" for line in metrics()),
            "scores": scores(),
            "model": {
                "vision_config": {"num_hidden_layers": 4, "hidden_size": 128, "image_size": 64, "patch_size": 8},
                "text_config": {"num_hidden_layers": 4, "hidden_size": 192, "vocab_size": 2048},
                "connector": "average_pool",
                "image_seq_length": 16,
            },
        } | replaced
        run = tmp_path / "runs" / "demo"
        for folder in ("plan", "scores", "model"):
            (run / folder).mkdir(parents=True)
        for file, name in (
            ("recipe.yaml", "recipe"),
            ("environment.json", "environment"),
            ("plan/plan.json", "plan"),
            ("metrics.jsonl", "metrics"),
            ("model/config.json", "model"),
        ):
            if content[name] is not None:
                text = content[name] if isinstance(content[name], str) else json.dumps(content[name])
                (run / file).write_text(text)
        for file in content["scores"] or []:
            (run / "scores" / f"{file['task']}.{file['shots']}-shot.json").write_text(json.dumps(file))
        return run

    return write
