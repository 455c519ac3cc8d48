"""Splits a caption into words, as the COCO caption evaluation does.

That evaluation runs the PTB tokenizer of Stanford CoreNLP 3.4.1 (Java) with `-lowerCase -preserveLines` and then
removes punctuation. This module is our own tokenizer with the same results on captions: it tries all rules at each
position, and the longest match wins (the first of equally long ones). It was written by comparing outputs, not from the
Java code; `tests/evaluate/golden` contains the outputs that it is compared with.

Known differences: web and e-mail addresses of rare forms, and an abbreviation at the end of a caption, where the Java
tokenizer reads on into the next caption.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

PUNCTUATION = frozenset(
    ("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";")
)
"""Tokens that the COCO evaluation removes. The tokenizer writes brackets in lower case, so they stay."""

_ABBREVIATIONS = (
    "al cf co ct dr ft ga jr ky lt md mo mr ms mt ph rd rt sq sr st va vs vt wm adj adm adv ala apr aug ave bhd cie "
    "col cos cpl dak dec det drs ens esq est etc ext feb fla fri gen gov hon inc ind jan jos jul jun kan ltd maj mar "
    "mfg mme mon mrs mtg neb nev nov oct pfc plc pte pty pvt rep rev sen sep seq sfc sgt spc ste sys tel thu tue wed "
    "wis wyo alex ariz assn asst atty bldg blvd brig bros capt cmdr colo conn corp dept elec govs insp intl invt kans "
    "mich minn mlle mont msgr natl okla penn ppte ppty pres prof ptes ptys reps sens sept supt tenn tues univ wisc "
    "calif messrs thurs assoc comdr"
)
_IF_CAPITALIZED = "az la pa ark del ill ore tex mass miss wash"
_BEFORE_NUMBER = "ca no op pp art fig figs nos prop"

# A single letter before one of these words (capitalised), or at the end, ends a sentence and is no abbreviation.
_STARTERS = (
    "a about according additionally after an as at but earlier he her here however if in it last many more now once "
    "one other our she since so some such that the their then there these they this we what when while yet you"
)

_MAIL = r"[A-Za-z0-9][A-Za-z0-9.+_-]*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"
_LETTER = r"[^\W\d_]"
_APOSTROPHE = r"['\u2019]"
_NUMBER = r"(?:\d*(?:[.:,]\d+)+|\d+)"
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "''", "&apos;": "'"}
_SIGNS = {
    "\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u00a2": "cents", "\u00a3": "#", "\u20ac": "$",
    "\u2026": "...", "\u2013": "--", "\u2014": "--", "\u2015": "--", '"': "''", "\u201c": "``", "\u201d": "''",
    "\u00ab": "``", "\u00bb": "''", "\u2019": "'", "\u2018": "`", "\u203a": "'", "\u2039": "`",
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
}  # fmt: skip
# Words that the tokenizer splits: "cannot" is two words.
_ASSIMILATIONS = {
    word.replace(" ", ""): word.split()
    for word in ("can not", "gon na", "got ta", "wan na", "lem me", "gim me", "'t is", "'t was")
}

_SMILEYS = r"(?:[<>]?[:;=][-o*']?[()DPdpO\\\]{@|\[])(?![A-Za-z0-9])|\^_\^|[Tt]_[Tt]"


def _alternatives(words: str) -> str:
    return "|".join(words.split())


_WITH_APOSTROPHE = _alternatives(
    "'cause 'til 'em ol' somethin' dunkin' c'mon y' ma'am o'er ne'er e'er li'l s'mores 'n' d' l'"
).replace("'", _APOSTROPHE)


# At each position of a caption the rule with the longest match wins; of equally long matches the first.
_RULES = [
    re.compile(pattern)
    for pattern in (
        r"https?://[^\s\"<>|()]+",
        rf"{_MAIL}|<{_MAIL}>",
        r"(?:[A-Za-z0-9-]+\.)+(?:com|net|org|edu)/[^\s\"<>|()]*",
        r"</?[A-Za-z][\w.:-]*(?:\s+[\w.:-]+(?:=(?:\"[^\"]*\"|'[^']*'|\w+))?)*\s*/?>",
        r"@[A-Za-z_]\w*|#[A-Za-z_]+",
        r"&(?:amp|lt|gt|quot|apos);",
        # Words: cannot, man.made, hand-made, hand_made, hand/machine.
        rf"(?:{_alternatives('can(?=not)|gon(?=na)|got(?=ta)|wan(?=na)|lem(?=me)|gim(?=me)')})(?i:not|na|ta|me)\b",
        rf"{_LETTER}(?:{_LETTER}|\d)*(?:[.!?]{_LETTER}(?:{_LETTER}|\d)*)*",
        rf"(?:{_LETTER}|\d)+(?:-(?:{_LETTER}|\d)+)*",
        r"[A-Za-z0-9]+(?:_[A-Za-z0-9]+)+",
        r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}",
        r"\d+(?:[.:,]\d+)+-[A-Za-z]+",
        r"[A-Z]+(?:&[A-Z]+)+",
        # Numbers: -5, 1,000, 12:30, 1 1/2.
        rf"[-+]?{_NUMBER}",
        r"(?:\d{1,4}[- \u00a0])?\d{1,4}/\d{1,4}",
        r"\(\d{2,3}\) ?\d{3,4}[- ]\d{3,4}",
        r"[A-Z]+\$",
        rf"'n'?(?!{_LETTER})|\u2019n\u2019?",
        r"&#\d+;",
        # Abbreviations keep their period.
        rf"(?i:{_alternatives(_ABBREVIATIONS)})\.(?!\w)",
        rf"(?:{_alternatives(_IF_CAPITALIZED.title())}|{_alternatives(_IF_CAPITALIZED.upper())})\.(?!\w)",
        rf"(?i:{_alternatives(_BEFORE_NUMBER)})\.(?=\s*\d)",
        r"[A-Za-z](?:\.[A-Za-z])+\.",
        rf"[A-Za-z]\.(?!\s+(?:{_alternatives(_STARTERS.title())})(?:\s|$)|\s*$)",
        r"[Pp][Hh]\.[Dd]\.",
        r"[A-Za-z](?:\.[A-Za-z])+\.?(?:-[A-Za-z]+)+",
        # Apostrophes inside words, and words that begin or end with one.
        rf"(?:(?:{_LETTER}|\d)+-)*[dDoOlL]{_APOSTROPHE}{_LETTER}(?:{_LETTER}|\d)*",
        rf"(?i:{_WITH_APOSTROPHE})",
        rf"{_APOSTROPHE}\d\d(?:[sS]\b|(?![\d'\"]))",
        rf"(?i:{_APOSTROPHE}t(?={_APOSTROPHE}?(?:is|was)\b))",
        rf"(?i:{_APOSTROPHE}(?:[msd]|re|ve|ll))(?!{_LETTER})",
        rf"(?i:n{_APOSTROPHE}t)(?!{_LETTER})",
        # Punctuation.
        r"\.(?: ?\.){2}",
        r"[!?]+|<<|>>",
        r"-{2,}",
        r"``|''|`|'",
        r"[*]+",
        r"_+",
        _SMILEYS,
    )
]
_PLAIN = re.compile(r"[A-Za-z]+(?=\s|$)")
_SUFFIX = re.compile(r"\u2019(?:[msd]|re|ve|ll|t)")
_SPACE = re.compile(r"\s+")
_NOT = re.compile(rf"((?:{_LETTER}|\d)*?)(n{_APOSTROPHE}t)(?!{_LETTER})", re.IGNORECASE)


def caption_tokens(caption: str) -> list[str]:
    """Return the words of a caption in lower case, without punctuation."""
    return [token for token in tokenize(caption) if token not in PUNCTUATION]


def caption_words(caption: str) -> list[str]:
    """Return the words as CIDEr and BLEU count them: the tokenizer's one token "1 1/2" is two words."""
    return " ".join(caption_tokens(caption)).split()


def tokenize(caption: str) -> Iterator[str]:
    """Yield the tokens of a caption in lower case, with punctuation."""
    position = 0
    while position < len(caption):
        if space := _SPACE.match(caption, position):
            position = space.end()
        elif plain := _PLAIN.match(caption, position):
            word = plain.group().lower()
            yield from _ASSIMILATIONS.get(word, (word,))
            position = plain.end()
        elif (split := _NOT.match(caption, position)) and split.group(1):
            yield from (split.group(1).lower(), "n't")
            position = split.end()
        else:
            matches = [match.group() for rule in _RULES if (match := rule.match(caption, position))]
            token = max(matches, key=len, default=caption[position])
            yield from _ptb_form(token)
            position += len(token)


def _ptb_form(token: str) -> list[str]:
    """Return a token in the form that the PTB tokenizer writes."""
    lower = token.lower()
    if lower in _ASSIMILATIONS:
        return _ASSIMILATIONS[lower]
    if token in _ENTITIES:
        return [_ENTITIES[token]]
    if token in _SIGNS:
        return [_SIGNS[token]]
    if token[0] == "-" and not token.strip("-"):
        return ["--" if 1 < len(token) < 5 else token]
    if "(" in token or ")" in token:
        lower = lower.replace("(", "-lrb-").replace(")", "-rrb-")
    if _SUFFIX.fullmatch(lower):
        lower = lower.replace("\u2019", "'")
    return [lower.replace(" ", "\u00a0" if token[0] != "." else "")]
