"""Multiple choice on how a text continues, derived from passages of prose, to measure what text teaches.

The wrong endings are the right one with its words in another order. So the choice needs no knowledge of the subject,
which small models lack, but some of the language.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mm1.corpora.seeded import seeded
from mm1.document import Document, Text

CONTEXT, ENDING = 20, 8  # words
OPTIONS = 4


def continuations(passages: Iterable[Document], seed: int) -> Iterator[Document]:
    """Yield items: some words of a passage with four endings, the real one and three with its words shuffled.

    The items of a passage don't overlap; endings with too few different words are left out. An item's meta has
    `context`, `options` and `answer` (one of the options).

    Args:
        passages: Documents of text.
        seed: The seed of the order of words and of options.
    """
    for passage in passages:
        words = passage.text.split()
        for number, start in enumerate(range(0, len(words) - CONTEXT - ENDING + 1, CONTEXT + ENDING)):
            draw = seeded(seed, "continuations", passage.id, number)
            context, ending = words[start:][:CONTEXT], words[start + CONTEXT :][:ENDING]
            if len(set(ending)) < ENDING - 2:
                continue
            options = [ending]
            while len(options) < OPTIONS:
                shuffled = draw.sample(ending, ENDING)
                if shuffled not in options:
                    options.append(shuffled)
            draw.shuffle(options)
            texts = {"context": " ".join(context), "answer": " ".join(ending)}
            parts = (Text(texts["context"], target=False), Text(f" {texts['answer']}"))
            meta = {**texts, "options": [" ".join(option) for option in options]}
            yield Document(f"{passage.id}/{number}", "text", parts, meta)
