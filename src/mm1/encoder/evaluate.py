"""Scores an encoder on held-out pictures: retrieval, zero-shot classification, linear probe.

score_encoder(Path("runs/clip-demo"))    # by its recipe's section `evaluate`; writes scores/encoder.json
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text as Styled

from mm1.data.corpus import open_split
from mm1.data.skips import Skips
from mm1.devices import choose_device
from mm1.document import Document
from mm1.encoder.features import Encoder
from mm1.encoder.pictures import caption_of
from mm1.encoder.probe import probe_right
from mm1.encoder.retrieval import RANKS, chance_recall, distinct_pairs, ranks_of_best
from mm1.encoder.zero_shot import class_features, class_names
from mm1.errors import UserError
from mm1.evaluate.bootstrap import ITEM_RESAMPLES, bootstrap_interval
from mm1.evaluate.metrics import EXACT_MATCH
from mm1.files import write_json
from mm1.processing.images import ImageError, decode_image
from mm1.recipe import EncoderEvaluateRecipe, EncoderRecipe, ProbeRecipe, ZeroShotRecipe, load_recipe

Result = dict[str, Any]
"""A line of the table: task, corpus, measure, score, interval, chance, items; left_out and protocol."""


def score_encoder(path: Path, overrides: list[str] | None = None, device: str = "auto", seed: int = 0) -> list[Result]:
    """Score a run's encoder by its recipe's section `evaluate`.

    Args:
        path: The run's directory; the results are written to `scores/encoder.json` in it.
        overrides: Changes to the recipe, such as `evaluate.limit=100`.
        device: `auto` (a GPU if there is one), or a torch device.
        seed: The seed of the choice of pictures if there is a limit, and of the resamples.

    Returns:
        The lines of the result.

    Raises:
        UserError: If there is no trained encoder, the recipe names no corpus to score it on, or a corpus doesn't fit.
    """
    file = path / "recipe.yaml"
    if not file.is_file():
        raise UserError(f"{path}: not a run's directory (it has no recipe.yaml): name one that `mm1 encoder` made")
    recipe = load_recipe(str(file), overrides or [], schema=EncoderRecipe).evaluate
    if not (recipe.retrieval or recipe.zero_shot or recipe.probe):
        raise UserError(
            f"{path}: the recipe names no corpus to score the encoder on: add --set 'evaluate.retrieval=[corpus/split]'"
        )
    where = choose_device(device, "device")
    encoder = Encoder(path, where, recipe.batch_size)
    results = [
        *(line for corpus in recipe.retrieval for line in _retrieval(encoder, corpus, recipe, seed)),
        *(_zero_shot(encoder, task, recipe, seed) for task in recipe.zero_shot),
        *(_probe(encoder, probe, recipe, seed) for probe in recipe.probe),
    ]
    (path / "scores").mkdir(exist_ok=True)
    write_json(path / "scores" / "encoder.json", results, indent=1)
    return results


def result_table(results: list[Result]) -> Table:
    """Return a table of scores in percent, with half the width of the 95 % interval and the score of chance."""
    table = Table(title="Encoder", title_justify="left")
    table.add_column("measure", no_wrap=True)
    for name in ("items", "score", "chance"):
        table.add_column(name, justify="right", no_wrap=True)
    for heading in dict.fromkeys((line["task"], line["corpus"]) for line in results):
        table.add_row(", ".join(heading), style="bold")
        for line in (line for line in results if (line["task"], line["corpus"]) == heading):
            low, high = line["interval"]
            score = Styled.assemble(f"{100 * line['score']:.1f} ", (f"±{50 * (high - low):.1f}", "dim"))
            chance = Styled(f"{100 * line['chance']:.1f}", "dim")
            table.add_row(f"  {line['measure']}", f"{line['items']:,}", score, chance)
        table.add_section()
    return table


def _retrieval(encoder: Encoder, corpus: str, recipe: EncoderEvaluateRecipe, seed: int) -> list[Result]:
    skips = Skips()
    pictures, captions = _read(corpus, lambda d: caption_of(d) or None, "no caption", recipe.limit, seed, skips)
    pairs = distinct_pairs(pictures, captions)
    images = encoder.image_features([pictures[i] for i in pairs.pictures])
    similarities = images @ encoder.text_features(pairs.captions).T
    protocol = {"pictures": len(pairs.pictures), "captions": len(pairs.captions), "limit": recipe.limit, "seed": seed}
    lines = []
    for direction, scores, right in (
        ("image to text", similarities, pairs.right),
        ("text to image", similarities.T, pairs.right.T),
    ):
        ranks = ranks_of_best(scores, right)
        for k in RANKS:
            chance = chance_recall(right.sum(1).numpy(), right.shape[1], k)
            lines.append(_line("retrieval", corpus, f"{direction} R@{k}", ranks <= k, chance, skips, protocol, seed))
    return lines


def _zero_shot(encoder: Encoder, task: ZeroShotRecipe, recipe: EncoderEvaluateRecipe, seed: int) -> Result:
    skips = Skips()
    pictures, labels = _read(task.corpus, _labelled(task.label), f"no '{task.label}'", recipe.limit, seed, skips)
    classes, targets = np.unique(np.array(labels), return_inverse=True)
    names = class_names([str(label) for label in classes], task.names)
    features = class_features(encoder, names, task.templates)
    predicted = (encoder.image_features(pictures) @ features.T).argmax(1).numpy()
    protocol = {"label": task.label, "templates": task.templates, "classes": names, "seed": seed}
    return _line("zero-shot", task.corpus, task.label, predicted == targets, 1 / len(names), skips, protocol, seed)


def _probe(encoder: Encoder, probe: ProbeRecipe, recipe: EncoderEvaluateRecipe, seed: int) -> Result:
    skips, features, labels = Skips(), [], []
    for corpus in (probe.train, probe.test):
        pictures, of_corpus = _read(corpus, _labelled(probe.label), f"no '{probe.label}'", recipe.limit, seed, skips)
        features.append(encoder.patch_means(pictures).numpy())
        labels.append(np.array(of_corpus))
    right = probe_right(*features, *labels)
    # The score of always answering with the most frequent class of the training split.
    chance = float((labels[1] == max(labels[0].tolist(), key=labels[0].tolist().count)).mean())
    protocol = {
        "label": probe.label,
        "train": probe.train,
        "features": "mean of the last layer's patches, standardised",
        "classifier": "logistic regression, C = 1",
        "chance": "the commonest class of the training split",
        "seed": seed,
    }
    return _line("linear probe", probe.test, probe.label, right, chance, skips, protocol, seed)


def _line(
    task: str,
    corpus: str,
    measure: str,
    right: np.ndarray,
    chance: float,
    skips: Skips,
    protocol: dict[str, Any],
    seed: int,
) -> Result:
    statistics = right.astype(np.float64)[:, None]
    return {
        "task": task,
        "corpus": corpus,
        "measure": measure,
        "score": float(right.mean()),
        "interval": bootstrap_interval(EXACT_MATCH, statistics, seed=seed),
        "chance": chance,
        "items": len(right),
        "left_out": skips.as_dict(),
        "protocol": {**protocol, "resamples": ITEM_RESAMPLES, "content_hash": open_split(corpus).content_hash},
    }


def _labelled(key: str) -> Callable[[Document], str | None]:
    def label(document: Document) -> str | None:
        value = document.meta.get(key)
        return None if value is None else str(value)

    return label


def _read(
    corpus: str, text_of: Callable[[Document], str | None], missing: str, limit: int | None, seed: int, skips: Skips
) -> tuple[list[bytes], list[str]]:
    """Return the pictures of a split's documents that have one picture, with a text for each.

    Raises:
        UserError: If there is no such document.
    """
    split = open_split(corpus)
    pictures, texts = [], []
    for number in np.random.default_rng(seed).permutation(len(split)):
        document = split[int(number)]
        text = text_of(document)
        if len(document.images) != 1:
            skips.add("not one picture", document.id)
        elif text is None:
            skips.add(missing, document.id)
        elif (picture := _readable(document, skips)) is not None:
            pictures.append(picture)
            texts.append(text)
        if len(pictures) == limit:
            break
    if not pictures:
        reasons = ", ".join(f"{count:,}: {reason}" for reason, count in skips.counts.items())
        raise UserError(
            f"{corpus}: the split has no document to score the encoder on ({reasons or 'it is empty'}): name another "
            "split"
        )
    return pictures, texts


def _readable(document: Document, skips: Skips) -> bytes | None:
    picture = document.images[0].read()
    try:
        decode_image(picture)
    except ImageError as error:
        skips.add(f"a picture that can't be read ({error})", document.id)
        return None
    return picture
