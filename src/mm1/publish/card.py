"""The card of a model, README.md: metadata that `huggingface_hub.ModelCard` reads, and a page for people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment

from mm1.model import MM1Config
from mm1.processing.processor import MM1Processor
from mm1.publish.facts import Base, CorpusFacts, RunFacts
from mm1.report.read_run import Score
from mm1.report.words import compact, highest_floor, is_cider, metric_name, percent, points

PIPELINE = "image-text-to-text"
UNKNOWN_LICENCE = "unknown"
"""The Hub's word for a model whose author has chosen none."""
_METRICS = {"cider": "cider", "exact_match": "exact_match", "accuracy": "accuracy"}
_SOURCES_SHOWN = 4


@dataclass(frozen=True)
class CardSubject:
    """The model that a card is about.

    Attributes:
        name: Hub id, or the folder's name.
        placed: Whether the name is a folder's.
        config: Its configuration.
        processor: Its processor.
        parameters: How many it has.
        licence: Of the model, as the Hub writes it (`apache-2.0`).
        facts: What its run says; None if there is no run.
        step: The step of the run that the model is of; None: the last.
    """

    name: str
    placed: bool
    config: MM1Config
    processor: MM1Processor
    parameters: int
    licence: str = UNKNOWN_LICENCE
    facts: RunFacts | None = None
    step: int | None = None


def write_card(subject: CardSubject) -> ModelCard:
    """Return the card of a model."""
    facts = subject.facts
    runs = [] if facts is None else list(facts.lineage())
    context: dict[str, Any] = {
        "title": subject.name.rpartition("/")[2],
        "name": subject.name,
        "placed": subject.placed,
        "turns": subject.processor.takes_turns,
        "summary": _summary(subject),
        "bases": [{"of": run.name, "part": base.part, "cell": _base_cell(base)} for run in runs for base in run.bases],
        "corpora": [[run.name, *_corpus_row(corpus)] for run in runs for corpus in run.corpora],
        "data_note": _data_note(runs),
        "scores": [_score_row(score) for score in (facts.scores if facts else ())],
        "limits": _limits(subject),
        "recipes": [{"name": run.name, "text": run.recipe.rstrip()} for run in runs],
        "training": _training(facts, subject.step) if facts else "",
    }
    # No escaping: it is Markdown, and its words are the user's own.
    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)  # noqa: S701
    template = resources.files("mm1.publish").joinpath("card.md.jinja").read_text("utf-8")
    page = re.sub(r"\n{3,}", "\n\n", environment.from_string(template).render(context))
    return ModelCard(f"---\n{_metadata(subject).to_yaml()}\n---\n\n{page}")


def renamed(card: str, name: str) -> str:
    """Return a card whose code names the model in another way."""
    old = re.search(r'^MODEL = "([^"\n]*)"$', card, re.MULTILINE)
    if old is None:
        return card
    card = card.replace(old[0], f'MODEL = "{name}"')
    return re.sub(rf"(`mm1 (?:chat|caption) ){re.escape(old[1])} ", lambda match: f"{match[1]}{name} ", card)


def _metadata(subject: CardSubject) -> ModelCardData:
    facts = subject.facts
    runs = [] if facts is None else list(facts.lineage())
    datasets = list(dict.fromkeys(one for run in runs for corpus in run.corpora for one in corpus.hub_ids))
    turns = subject.processor.takes_turns
    return ModelCardData(
        license=subject.licence,
        library_name="transformers",
        pipeline_tag=PIPELINE,
        tags=["mm1", "multimodal", "arxiv:2403.09611", *(["conversational"] if turns else [])],
        # Only what the Hub knows: it refuses a card whose base model is a folder (huggingface/transformers#33922).
        base_model=(facts.hub_models if facts else []) or None,
        datasets=datasets or None,
        **_results(subject),
    )


def _results(subject: CardSubject) -> dict[str, Any]:
    scores = subject.facts.scores if subject.facts else ()
    if not scores:
        return {}
    return {"model_name": subject.name.rpartition("/")[2], "eval_results": [_result(score) for score in scores]}


def _result(score: Score) -> EvalResult:
    return EvalResult(
        task_type=PIPELINE,
        dataset_type=score.task,
        dataset_name=score.task,
        dataset_config=f"{score.shots}-shot",
        metric_type=_METRICS.get(score.metric.lower(), score.metric),
        metric_name=metric_name(score.metric),
        metric_value=round(score.score, 4),
    )


def _summary(subject: CardSubject) -> str:
    config, text = subject.config, subject.config.get_text_config()
    kind = "fine-tuned on conversations" if subject.processor.takes_turns else "pre-trained"
    experts = f", mixture of {config.moe_num_experts} experts" if config.moe_num_experts else ""
    rule = subject.processor.rule
    image = f"{subject.processor.tokens_per_image} tokens, scaled to {subject.processor.image_size} pixels a side"
    if rule.cuts:
        image = f"several images (grid {rule.grid}) of {image} each"
    return (
        f"A multimodal language model of the MM1 family ([arXiv 2403.09611](https://arxiv.org/abs/2403.09611)), {kind} "
        f"by the Python package mm1: {compact(subject.parameters)} parameters{experts}. It takes text with any number "
        f"of pictures in it. A picture becomes {image}, by a connector of the kind `{config.connector}`; prompt and "
        f"answer together have at most {text.max_position_embeddings:,} tokens."
    )


def _base_cell(base: Base) -> str:
    return f"[{base.name}](https://huggingface.co/{base.name})" if base.on_hub else f"{base.name} (of the same author)"


def _corpus_row(corpus: CorpusFacts) -> list[str]:
    more = len(corpus.sources) - _SOURCES_SHOWN
    sources = ", ".join(corpus.sources[:_SOURCES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    cells = [corpus.name, corpus.kind, corpus.licence or "not known", f"{corpus.documents:,}"]
    cells += ["" if corpus.share is None else percent(corpus.share)]
    cells += ["" if corpus.epochs is None else f"{corpus.epochs:.2f}", sources]
    return [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]


def _data_note(runs: list[RunFacts]) -> str:
    unknown = sorted({corpus.name for run in runs for corpus in run.corpora if corpus.licence is None})
    note = "Licences are those of the material, as its sources state them."
    return note + (f" Not known where the model was published: {', '.join(unknown)}." if unknown else "")


def _score_row(score: Score) -> list[str]:
    def shown(value: float) -> str:
        return points(value, score.metric)

    interval = "" if score.interval is None else " to ".join(shown(end) for end in score.interval)
    floor = highest_floor(score)
    unreadable = f" ({score.errors} without an answer)" if score.errors else ""
    name = metric_name(score.metric) + (" x 100" if is_cider(score.metric) else "")
    below = "" if floor is None else f"{shown(floor.score)} ({floor.name})"
    return [score.task, str(score.shots), name, shown(score.score), interval, f"{score.items:,}{unreadable}", below]


def _limits(subject: CardSubject) -> list[str]:
    facts = subject.facts
    limits = ["It makes things up: nothing checks an answer against the picture."]
    if facts is not None and facts.corpora:
        limits.append("It knows the kinds of pictures and words of the corpora above; of others it knows little.")
    if facts is not None and facts.plan.get("images_per_sequence"):
        limits.append(
            f"It was trained with at most {facts.plan['images_per_sequence']} images and "
            f"{facts.plan.get('sequence_length', 0):,} tokens in a sequence; longer prompts are new to it."
        )
    if not subject.processor.takes_turns:
        limits.append("It was not trained to follow instructions or to hold a conversation.")
    limits.append("It was not trained to refuse anything, and nothing filters what it says.")
    if facts is None or not facts.scores:
        limits.append("It is not scored.")
    if subject.licence == UNKNOWN_LICENCE:
        limits.append("Its author has chosen no licence; those of base models and data hold all the same.")
    return limits


def _training(facts: RunFacts, step: int | None) -> str:
    plan, machine = facts.plan, facts.environment
    figures = [f"{plan['steps']:,} steps"] if plan.get("steps") else []
    figures += [f"of {plan['batch_size']:,} sequences"] if plan.get("batch_size") else []
    figures += [f"{compact(plan[key])} {key}" for key in ("tokens", "images") if plan.get(key)]
    parts = ", ".join(f"{part.replace('_', ' ')} {compact(count)}" for part, count in facts.parameters.items())
    lines = [f"{facts.name}: {' '.join(figures[:2])}{''.join(f', {one}' for one in figures[2:])}."] if figures else []
    lines += [f"This model is of step {step:,}, not of the last."] if step is not None else []
    lines += [f"Plan hash `{plan['hash']}`: it fixes data, order and packing."] if plan.get("hash") else []
    lines += [f"Parameters: {parts}."] if parts else []
    versions = [f"{name} {machine[name]}" for name in ("mm1", "torch", "transformers") if machine.get(name)]
    commit = f" (commit {machine['commit']})" if machine.get("commit") else ""
    lines += [f"Made with {', '.join(versions)}{commit}."] if versions else []
    return " ".join(lines)
