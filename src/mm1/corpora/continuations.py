"""How does a text go on? Multiple choice derived from passages of prose: what text teaches, without downloads.

The wrong endings are the right one with its words in another order. So it takes no knowledge of the subject, which
small models lack, but some of the language.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mm1.corpora.seeded import seeded
from mm1.document import Document, Text

CONTEXT, ENDING = 20, 8  # words
OPTIONS = 4


def continuations(passages: Iterable[Document], seed: int) -> Iterator[Document]:
    """Yield items: the words before a place in a passage, and four endings: the one that follows, and shuffled ones.

    Passages are gone through without overlap; endings of too few different words are left out. An item's facts:
    `context`, `options`, `answer` (one of them).

    Args:
        passages: Documents of text.
        seed: Of the order of words and of options.
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
            said = {"context": " ".join(context), "answer": " ".join(ending)}
            parts = (Text(said["context"], target=False), Text(f" {said['answer']}"))
            facts = {**said, "options": [" ".join(option) for option in options]}
            yield Document(f"{passage.id}/{number}", "text", parts, facts)
