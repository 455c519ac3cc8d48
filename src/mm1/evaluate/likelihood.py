"""Options chosen by how likely the model holds them, as text benchmarks are scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mm1.document import Document
from mm1.errors import UserError
from mm1.evaluate.models.generator import Advance, Answer, ContextTooShort, Generator, Likelihood
from mm1.evaluate.prompts import PromptStyle, build_prompt, continuation, with_option
from mm1.evaluate.tasks.item import Item
from mm1.evaluate.tasks.task import Task

TooLong = Callable[[ContextTooShort, Item, tuple[Item, ...]], UserError]


def query_prompt(
    task: Task, item: Item, shots: Sequence[Item], style: PromptStyle | None = None, option: str | None = None
) -> Document:
    """Return the prompt of an item; where prompts show an option, with that one (default: its first)."""
    if task.continuation is not None:
        item = with_option(item, item.options[0] if option is None else option)
    return build_prompt(task, item, shots, style)


def choose_options(
    generator: Generator,
    task: Task,
    items: Sequence[Item],
    shots: Sequence[tuple[Item, ...]],
    too_long: TooLong,
    advance: Advance,
    style: PromptStyle | None = None,
) -> tuple[list[Document], list[Answer]]:
    """Choose each item's likeliest option.

    Args:
        generator: The model.
        task: Says how likelihoods are compared.
        items: With options.
        shots: Of each item.
        too_long: Makes the message where an item doesn't fit the model's context.
        advance: Told how many more items are done.
        style: Of the prompts; default: plain.

    Returns:
        Each item's prompt (with its first option, where prompts show one) and the chosen option's words.
    """
    pairs = [(index, option) for index, item in enumerate(items) for option in item.options]
    prompts = [query_prompt(task, items[index], shots[index], style, option) for index, option in pairs]
    texts = [continuation(task, items[index], option) for index, option in pairs]
    try:
        likelihoods = generator.log_likelihoods(prompts, texts)
    except ContextTooShort as error:
        index, _ = pairs[error.index]
        raise too_long(error, items[index], shots[index]) from None
    advance(len(items))
    of_item: list[list[tuple[float, str, Likelihood]]] = [[] for _ in items]
    for (index, option), text, likelihood in zip(pairs, texts, likelihoods, strict=True):
        # Per character of the option itself: a long option is not worse for being long.
        length = len(text.strip()) if task.likelihood == "per character" else 1
        worth = likelihood.total / max(1, length)
        of_item[index].append((worth, option, likelihood))
    shown = [query_prompt(task, item, drawn, style) for item, drawn in zip(items, shots, strict=True)]
    return shown, [_chosen(task, options) for options in of_item]


def _chosen(task: Task, options: list[tuple[float, str, Likelihood]]) -> Answer:
    for _, _, likelihood in options:
        if likelihood.error is not None:
            return likelihood.error
    if task.likelihood == "greedy":
        return next((option for _, option, likelihood in options if likelihood.greedy), "")
    return max(options, key=lambda entry: entry[0])[1]
