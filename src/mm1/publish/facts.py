"""What a run says of itself, in words that may be published: base models, corpora, plan, scores."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mm1.errors import UserError
from mm1.places import ModelName, data_directory, parse_model_name
from mm1.publish.private import public
from mm1.report.read_run import Run, Score, mapping, number, read_run

PACKAGED_IDS = {"smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Hub ids of the models that Python packages ship (`mm1.places.PACKAGED`), as far as the Hub has the same weights."""

_PARTS = {"": "the whole model", "vision": "vision encoder", "language_model": "decoder"}


@dataclass(frozen=True)
class Base:
    """A model that a run started from.

    Attributes:
        part: What it became: the whole model, the vision encoder, the decoder.
        name: Its Hub id, or the name of a run or folder.
        on_hub: Whether the name is a Hub id.
        run: What that run says of itself, if it is one and is here.
    """

    part: str
    name: str
    on_hub: bool
    run: RunFacts | None = None


@dataclass(frozen=True)
class CorpusFacts:
    """A corpus that a run was trained on.

    Attributes:
        name: `corpus/split`.
        kind: What its documents are.
        licence: Of the material; None: the corpus isn't here to ask.
        sources: Packages, files or addresses that it came from.
        documents: Documents that were trained on.
        share: Share of the run's sequences.
        epochs: How often it was gone through.
        hub_ids: Data sets of the Hub among its sources.
    """

    name: str
    kind: str
    licence: str | None
    sources: tuple[str, ...]
    documents: int
    share: float | None
    epochs: float | None
    hub_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunFacts:
    """What a run says of itself.

    Attributes:
        name: The recipe's name.
        recipe: The resolved recipe as YAML, without paths of this machine.
        plan: The figures of the plan: `hash`, `steps`, `tokens`, `images`, `batch_size` and others.
        environment: Versions and machine.
        parameters: By part of the model.
        bases: What it started from.
        corpora: What it was trained on.
        scores: Its scores.
        stale_scores: How many scores were left out, since they are of other weights.
    """

    name: str
    recipe: str
    plan: Mapping[str, Any]
    environment: Mapping[str, Any]
    parameters: Mapping[str, int]
    bases: tuple[Base, ...]
    corpora: tuple[CorpusFacts, ...]
    scores: tuple[Score, ...] = ()
    stale_scores: int = 0

    def lineage(self) -> Iterator[RunFacts]:
        """Yield this run, and the runs that it started from."""
        yield self
        for base in self.bases:
            if base.run is not None:
                yield from base.run.lineage()

    @property
    def hub_models(self) -> list[str]:
        """The Hub ids of the models that all of the lineage started from."""
        return list(dict.fromkeys(base.name for run in self.lineage() for base in run.bases if base.on_hub))


def run_of(name: ModelName) -> Path | None:
    """Return the run that a model belongs to, by its name or since its folder lies in a run; None if there is none."""
    if name.folder is None:
        return None
    folder = name.folder.expanduser().absolute()
    for place in (folder, folder.parent):
        if (place / "recipe.yaml").is_file():
            return place
    return None


def read_facts(run: Path, *, scores: Path | None = None, model_hash: str | None = None) -> RunFacts:
    """Return what a run says of itself.

    Args:
        run: Its directory.
        scores: The folder of the scores; default: the run's.
        model_hash: Of the model that is published; scores of other weights are left out. None: no scores are taken.
    """
    read = read_run(run, scores)
    recipe = dict(read.recipe)
    taken = [score for score in read.scores if model_hash is None or score.protocol.get("model_hash") == model_hash]
    return RunFacts(
        name=str(public(read.name)),
        recipe=yaml.safe_dump(public(recipe), sort_keys=False, allow_unicode=True),
        plan=read.plan,
        environment=public(dict(read.environment)),
        parameters=read.parameters,
        bases=tuple(_bases(recipe, run)),
        corpora=tuple(_corpora(read, recipe)),
        scores=tuple(taken) if model_hash is not None else (),
        stale_scores=len(read.scores) - len(taken) if model_hash is not None else 0,
    )


def _bases(recipe: Mapping[str, Any], run: Path) -> Iterator[Base]:
    model = mapping(recipe, "model")
    for key, part in _PARTS.items():
        source = (mapping(model, key) if key else model).get("from")
        if isinstance(source, str) and source:
            yield _base(part, source, run)


def _base(part: str, source: str, run: Path) -> Base:
    try:
        name = parse_model_name(source)
    except UserError:
        return Base(part, str(public(source)), False)
    shown = str(public(name.place))
    if name.kind == "packaged":
        return Base(part, PACKAGED_IDS.get(name.place, name.place), name.place in PACKAGED_IDS)
    if name.kind == "hub":
        is_id = "/" in name.place
        return Base(part, name.place, is_id)
    if name.place != shown and re.fullmatch(r"[\w.-]+/[\w.-]+", shown):  # a folder of the Hub's cache
        return Base(part, shown, True)
    earlier = run_of(name)
    if earlier is None or earlier == run.absolute():
        return Base(part, shown.rpartition("/")[2], False)
    facts = read_facts(earlier)
    step = f"@{name.version}" if name.version else ""
    return Base(part, f"{facts.name}{step}", False, facts)


def _corpora(run: Run, recipe: Mapping[str, Any]) -> Iterator[CorpusFacts]:
    sources = mapping(run.plan, "sources")
    total = sum(number(mapping(sources, name).get("sequences")) or 0 for name in sources)
    for name, figures in sources.items():
        found = _corpus_json(name)
        sequences = number(figures.get("sequences"))
        listed = [str(source) for source in found.get("sources") or [] if isinstance(source, str)]
        shown = tuple(dict.fromkeys(str(public(source)) for source in listed))
        yield CorpusFacts(
            name="/".join(str(name).split("/")[-2:]),
            kind=str(figures.get("kind", "")),
            licence=str(public(str(found["licence"]))) if found.get("licence") else None,
            sources=shown,
            documents=int(number(figures.get("documents")) or 0),
            share=sequences / total if sequences is not None and total else None,
            epochs=number(figures.get("epochs")),
            hub_ids=_hub_ids(found, str(name).rpartition("/")[2].partition("@")[0]),
        )


def _corpus_json(name: str) -> Mapping[str, Any]:
    """Return the `corpus.json` of `corpus/split`; empty if it isn't here."""
    try:
        content = json.loads(((data_directory() / name).parent / "corpus.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _hub_ids(corpus: Mapping[str, Any], split: str) -> tuple[str, ...]:
    """Return the data sets of the Hub that a split was built from."""
    built = mapping(mapping(mapping(corpus, "splits"), split), "built")
    patterns = built.get("patterns") if built.get("format") == "hub" else None
    return tuple(str(one) for one in patterns or () if re.fullmatch(r"[\w.-]+/[\w.-]+", str(one)))
