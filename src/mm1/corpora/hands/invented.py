"""Invented words that name things for one page, such as `dax`."""

from __future__ import annotations

from mm1.corpora.hands.english import word_list
from mm1.corpora.seeded import seeded

_ONSETS = word_list("b bl br d dr f fl fr g gl gr h j k kl kr l m n p pl pr r s sk sl sn sp st t tr v w y z")
_VOWELS = word_list("a e i o u ee oo ai")
_ENDS = word_list("b d f g k l m n p r s t x z ck ff ll mp nd nk rt sk st zz")
_INSIDE = word_list("b d f g k l m n p r s t v z")


def invented_words(count: int, seed: int) -> list[str]:
    """Return so many different pronounceable words, which may be real ones by chance.

    Args:
        count: Number of words.
        seed: The seed of the choice.
    """
    draw = seeded(seed, "invented words")
    words: dict[str, None] = {}
    while len(words) < count:
        word = draw.choice(_ONSETS) + draw.choice(_VOWELS)
        if draw.random() < 0.4:
            word += draw.choice(_INSIDE) + draw.choice(_VOWELS[:5])
        word += draw.choice(_ENDS) if draw.random() < 0.8 else ""
        if 3 <= len(word) <= 6:
            words[word] = None
    return list(words)
