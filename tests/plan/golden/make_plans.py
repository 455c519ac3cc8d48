"""Makes `plans.json`, what `tests.plan.test_golden_plans` compares plans with.

    python -m tests.plan.golden.make_plans

To be run only when `mm1.plan.plan.RULE` is raised: all runs then get other plans.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mm1.document import Kind
from mm1.plan.lengths import IMAGE, Index
from mm1.plan.plan import write_plan
from mm1.plan.sources import Source
from mm1.recipe import DataRecipe

FILE = Path(__file__).with_name("plans.json")

MIXTURES: dict[str, dict[str, Any]] = {
    "all kinds": {"steps": 40, "sources": ["captions", "more captions", "pages", "texts"]},
    "many epochs": {"steps": 200, "sources": ["few", "texts"]},
    "one source of two blocks": {"steps": 600, "sources": ["large"]},
    "two epochs of a source of two blocks": {"steps": 1700, "sources": ["large", "few"]},
    "one picture a sequence": {"steps": 50, "sources": ["captions"], "images": 1},
    "cut pictures": {"steps": 60, "sources": ["cut", "texts"]},
    "documents left out": {"steps": 60, "sources": ["some", "pages"], "images": 9},
}


def source(name: str) -> Source:
    """Return a made-up source."""
    random = np.random.default_rng(sum(name.encode()))
    if name == "texts":
        return _source(name, "text", np.minimum(random.lognormal(4, 1.3, 3000), 5000).astype(int).reshape(-1, 1))
    if name in ("pages", "cut", "some"):
        pictures = np.minimum(random.geometric(0.25, 4000), 20)
        parts = np.where(np.arange(2 * pictures.sum()) % 2, random.integers(0, 90, 2 * pictures.sum()), IMAGE)
        made = _source(name, "interleaved", np.split(parts, np.cumsum(2 * pictures)[:-1]))
        if name == "some":
            return replace(made, documents=np.flatnonzero(random.random(4000) < 0.7))
        if name == "cut":
            images = np.where(made.index.parts == IMAGE, random.integers(1, 5, len(made.index.parts)), 0)
            return replace(made, index=replace(made.index, sub_images=images.astype(np.int32)))
        return made
    count = {"captions": 5000, "more captions": 700, "few": 40, "large": 70_000}[name]
    return _source(name, "caption", np.stack([np.full(count, IMAGE), random.integers(3, 60, count)], axis=1))


def _source(name: str, kind: Kind, documents: Any) -> Source:
    offsets = np.concatenate([[0], np.cumsum([len(parts) for parts in documents])]).astype(np.int64)
    parts = np.concatenate(list(documents)).astype(np.int32)
    return Source(name, kind, 1 + len(name) % 3, f"content of {name}", Index(parts, offsets, parts > 2))


def make(directory: Path, mixture: str, **how: Any) -> dict[str, Any]:
    """Write the plan of a mixture; return its hash, the hashes of its arrays, and its figures."""
    settings = MIXTURES[mixture]
    sources = [source(name) for name in settings["sources"]]
    kinds = {made.kind: {"weight": 1 + len(made.kind) / 10, "sources": [{"corpus": "a/b"}]} for made in sources}
    images = settings.get("images", 16)
    recipe = DataRecipe.model_validate({"sequence_length": 512, "images_per_sequence": images, "mixture": kinds})
    plan = write_plan(
        directory,
        sources,
        recipe,
        tokenizer_fingerprint="t",
        tokens_per_image=9,
        batch_size=8,
        steps=settings["steps"],
        seed=3,
        **how,
    )
    names = ("sequences.npy", "pieces.npy")
    arrays = {name: hashlib.blake2b((directory / name).read_bytes(), digest_size=16).hexdigest() for name in names}
    figures = {name: {**entry} for name, entry in plan.info["sources"].items()}
    for entry in figures.values():
        entry.pop("read", None)
    return {"hash": plan.hash, **arrays, "sources": figures, "kinds": plan.info["kinds"]}


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        made = {mixture: make(Path(folder) / mixture, mixture) for mixture in MIXTURES}
    FILE.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
