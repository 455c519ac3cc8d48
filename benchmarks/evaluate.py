"""How fast is few-shot scoring against a plain loop over `generate`?

    python benchmarks/evaluate.py              # 200 queries at 0, 4 and 8 shots, a few minutes on two cores
    python benchmarks/evaluate.py --tiny       # the same in seconds, to see that it runs

Both sides have the same model (the packaged demo's sizes, random weights in float32), the same prompts (questions on
coloured squares, four shot sets), the same number of new tokens, and must give the same answers. The plain loop
decodes, encodes and prefills every prompt anew, one after another, as a loop over `model.generate` does; its
batched form pads prompts to the left. Rounds alternate between the sides; the median counts.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from PIL import Image as PILImage

from mm1.document import Document, Image, Part, Text
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.model import MM1ForConditionalGeneration, build_model
from mm1.processing.processor import MM1Processor, build_processor
from mm1.processing.tokenizer import train_tokenizer
from mm1.recipe import load_recipe

COLORS = ("red", "green", "blue", "yellow", "black", "gray", "teal", "brown")
QUESTIONS = (
    "what color is it?",
    "is it red?",
    "is there a blue square in the picture?",
    "which color does this square have?",
)
SETS = 4
NEW_TOKENS = 3


def square(number: int, side: int) -> Image:
    """Return a picture of one colour with one other pixel, so that no two are the same."""
    picture = PILImage.new("RGB", (side, side), COLORS[number % len(COLORS)])
    picture.putpixel((number % side, number // side % side), (255, 255, 255))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return Image(buffer.getvalue())


def parts(number: int, side: int, *, answered: bool) -> list[Part]:
    """Return a question on a square, with its answer if it is a shot."""
    asked: list[Part] = [square(number, side), Text(f" Question: {QUESTIONS[number % 4]} Short answer:", False)]
    return [*asked, Text(f" {COLORS[number % len(COLORS)]}\n", False)] if answered else asked


def prompts(queries: int, shots: int, side: int) -> list[Document]:
    """Return prompts of `shots` shots, from four sets, and a query each."""
    chance = random.Random(0)
    sets = [
        [part for n in chance.sample(range(10_000, 11_000), shots) for part in parts(n, side, answered=True)]
        for _ in range(SETS)
    ]
    return [Document(str(n), "interleaved", (*sets[n % SETS], *parts(n, side, answered=False))) for n in range(queries)]


def model_and_processor(*, tiny: bool) -> tuple[MM1ForConditionalGeneration, MM1Processor]:
    """Return the demo's model with random weights, large enough that answers depend on the prompt."""
    recipe = load_recipe("demo", ["model.language_model.num_layers=2"] if tiny else [])
    side = recipe.model.vision.image_size
    texts = [Document("", "text", tuple(parts(n, side, answered=True))).text for n in range(64)]
    tokenizer = train_tokenizer(texts, 400)
    processor = build_processor(tokenizer, side, recipe.model.connector.num_tokens)
    model = build_model(
        recipe.model,
        vocab_size=len(tokenizer),
        image_token_id=processor.image_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model.eval(), processor


@torch.inference_mode()
def plain_loop(
    model: MM1ForConditionalGeneration, processor: MM1Processor, asked: Sequence[Document], batch_size: int
) -> list[str]:
    """Answer by `model.generate` over whole prompts, padded to the left within a batch."""
    answers = []
    pad = processor.tokenizer.pad_token_id
    for start in range(0, len(asked), batch_size):
        encoded = [processor.encode(prompt, close=False) for prompt in asked[start : start + batch_size]]
        longest = max(len(e.input_ids) for e in encoded)
        ids = np.stack([np.pad(e.input_ids, (longest - len(e.input_ids), 0), constant_values=pad) for e in encoded])
        mask = np.stack([np.arange(longest) >= longest - len(e.input_ids) for e in encoded])
        images = [image for e in encoded for image in e.images]
        output = model.generate(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask.astype(np.int64)),
            pixel_values=processor.normalize(torch.from_numpy(processor.pixel_values(images))),
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
            suppress_tokens=[processor.image_token_id],
        )
        texts = processor.tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True)
        answers += [text.strip() for text in texts]
    return answers


def ours(model: MM1ForConditionalGeneration, processor: MM1Processor, asked: Sequence[Document]) -> list[str]:
    """Answer as scoring does, with a new generator: nothing is known from an earlier round."""
    answers = MM1Generator(model, processor, batch_size=64).generate(asked, max_new_tokens=NEW_TOKENS, stop=[])
    return [str(answer) for answer in answers]


def timed(work: Callable[[], list[str]]) -> tuple[float, list[str]]:
    """Return the seconds that a piece of work takes, and its answers."""
    start = time.perf_counter()
    answers = work()
    return time.perf_counter() - start, answers


def main() -> None:
    """Run the benchmark and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--shots", default="0,4,8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if options.tiny:
        options.queries, options.rounds = 12, 1
    torch.set_num_threads(options.threads)
    model, processor = model_and_processor(tiny=options.tiny)
    # No early end on either side: the work is the same whatever random weights write.
    processor.tokenizer.eos_token, model.generation_config.eos_token_id = "<pad>", None
    rows = []
    for shots in (int(count) for count in options.shots.split(",")):
        asked = prompts(options.queries, shots, processor.image_size)
        sides: dict[str, Callable[[], list[str]]] = {
            "mm1": partial(ours, model, processor, asked),
            "generate, one by one": partial(plain_loop, model, processor, asked, 1),
            "generate, batches of 16": partial(plain_loop, model, processor, asked, 16),
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        answers: dict[str, list[str]] = {}
        for _ in range(options.rounds):
            for name, work in sides.items():
                took, answers[name] = timed(work)
                seconds[name].append(took)
        rates = {name: options.queries / statistics.median(times) for name, times in seconds.items()}
        same = {
            name: np.mean([a == b for a, b in zip(answers["mm1"], found, strict=True)])
            for name, found in answers.items()
        }
        rows.append(
            {
                "shots": shots,
                "items_per_second": {name: round(rate, 1) for name, rate in rates.items()},
                "times_as_fast": {name: round(rates["mm1"] / rate, 2) for name, rate in rates.items() if name != "mm1"},
                "same_answers": {name: float(share) for name, share in same.items() if name != "mm1"},
            }
        )
    machine = {"processor": platform.processor() or platform.machine(), "threads": options.threads}
    print(
        json.dumps({"machine": machine, "torch": torch.__version__, "queries": options.queries, "rows": rows}, indent=2)
    )


if __name__ == "__main__":
    main()
