"""Chooses the option with the highest likelihood, as text benchmarks do."""

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
    """Return the prompt of an item; if the task's prompts show an option, with that option (default: the first)."""
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
        task: The task; it says how likelihoods are compared.
        items: The items, which have options.
        shots: The shots of each item.
        too_long: Makes the error if an item doesn't fit the model's context.
        advance: Gets the number of items that are done.
        style: The style of the prompts; default: plain.

    Returns:
        Each item's prompt (with its first option, if prompts show one) and the chosen option's text.
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
        # Per character of the option, so that a long option has no disadvantage.
        length = len(text.strip()) if task.likelihood == "per character" else 1
        of_item[index].append((likelihood.total / max(1, length), option, likelihood))
    shown = [query_prompt(task, item, drawn, style) for item, drawn in zip(items, shots, strict=True)]
    return shown, [_chosen(task, options) for options in of_item]


def _chosen(task: Task, options: list[tuple[float, str, Likelihood]]) -> Answer:
    for _, _, likelihood in options:
        if likelihood.error is not None:
            return likelihood.error
    if task.likelihood == "greedy":
        return next((option for _, option, likelihood in options if likelihood.greedy), "")
    return max(options, key=lambda entry: entry[0])[1]
