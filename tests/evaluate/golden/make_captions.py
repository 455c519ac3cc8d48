"""Make `captions.json` and `openclipart.json` with the COCO caption evaluation itself: its Java tokenizer, its scorers.

    pip download --no-deps pycocoevalcap==1.2 && unzip pycocoevalcap-1.2-py3-none-any.whl -d COCO
    apt-get download openclipart-svg && dpkg -x openclipart-svg_*.deb OPENCLIPART
    pip install numpy && python tests/evaluate/golden/make_captions.py COCO OPENCLIPART

Needs Java. `openclipart.json` holds what people wrote of their drawings, titles and descriptions as they are, from
Debian's openclipart-svg 1:0.18+dfsg-19 (dedicated to the public domain). The captions of one item are those of
different drawings that share a keyword; the first is scored against the others. `captions.json` is made up, with a
fixed seed, to hold what captions hold seldom: contractions, possessives, abbreviations, hyphens, numbers, quotes,
brackets, accents, slashes.
"""

import html
import json
import random
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

NOUNS = """dog|cat|man|woman|boy's kite|child's toy|men's room|T-shirt|hot-dog stand|Mr. Smith's car
St. Bernard|teddy bear|stop sign|U.S. flag|AT&T sign|B&W photo|CD/DVD player|T.V.|tv|2x4 board
20-year-old man|3-D model|laptops|dogs' bowls|iPhone 5s|coca-cola can|O'Hare airport
rock 'n' roll band|donuts|s'mores|ice-cream cone|No. 5 bus|#7 jersey|5 oz. steak|6 ft. ladder
1/2 pizza|1 1/2 sandwiches|50% off sign|$5 bill|café|naïve girl|jack-o-lantern|Dr. Pepper
Main St. sign"""
VERBS = """is sitting on|isn't near|doesn't hold|can't see|cannot reach|is about to eat|are gonna eat
riding|stands by|looks at|-- holding --|won't eat|'d like|they're near|it's by|who's with
that'll hit|should've caught|wanna pet"""
WORDS = """red|big|blue-and-white|black & white|so-called|"fancy"|'nice'|(old)|[blurry]|very, very small
well-lit|half-eaten|two|2|1,000|3.5|10:30|50's|1950s|'60s|first-class|multi-colored|a.m.|p.m.
etc.|Jan.|e.g."""
ENDS = ["", ".", "!", "?", "...", "!!", " .", ". ", ". The end", " - wow", " -- nice", ", too", " (2 of 3)", '."', ".)"]


def pieces(text: str) -> list[str]:
    return [piece for line in text.splitlines() for piece in line.split("|")]


def caption(chance: random.Random, noun: str) -> str:
    start = chance.choice(["A", "The", "Two", "There is a", "Here's a", "This is a"])
    word, verb, other = (chance.choice(pieces(text)) for text in (WORDS, VERBS, NOUNS))
    text = f"{start} {word} {noun} {verb} the {other}"
    if chance.random() < 0.4:
        text += chance.choice([" in ", ", ", "; ", " and ", "/", " - ", ": "]) + chance.choice(pieces(NOUNS))
    text += chance.choice(ENDS)
    if chance.random() < 0.1:
        text = text.upper()
    return text


def tokenize(folder: Path, captions: list[str]) -> list[list[str]]:
    sys.path.insert(0, str(folder))
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    jar = folder / "pycocoevalcap" / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("\n".join(captions) + "\n")
        file.flush()
        done = subprocess.run([*command, file.name], capture_output=True, text=True, check=True)
    lines = done.stdout.split("\n")[: len(captions)]
    return [[word for word in line.rstrip().split(" ") if word not in PUNCTUATIONS] for line in lines]


def made_up() -> list[dict]:
    chance = random.Random(0)
    items = []
    for _ in range(80):
        noun = chance.choice(pieces(NOUNS))
        captions = [caption(chance, noun) for _ in range(chance.randint(2, 6))]
        items.append({"prediction": captions[0], "references": captions[1:]})
    items[5]["prediction"] = items[5]["references"][0]
    items[6]["prediction"] = "unrelated words altogether"
    return items


def openclipart(folder: Path) -> list[dict]:
    # Insertion order of a sorted walk: the same everywhere.
    by_keyword: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for file in sorted(folder.rglob("*.svg")):
        text = file.read_text(encoding="utf-8", errors="replace")
        text = re.sub(r"<(?:cc:)?Agent.*?</(?:cc:)?Agent>", "", text, flags=re.DOTALL)  # people have titles as well
        found = re.findall(r"<dc:(?:title|description)[^>]*>([^<]*)", text)
        captions = {" ".join(html.unescape(entry).split()) for entry in found}
        # A picture's longest caption; machine-made ones and single names say nothing.
        own = max((c for c in captions if len(c.split()) >= 3 and "EPS converted" not in c), key=len, default=None)
        if own is None or len(own) > 200 or "\ufffd" in own:
            continue
        if re.search(r"\b[A-Za-z]\.$", own):  # Java looks on into the next caption: no words of its own (there is one)
            continue
        for keyword in re.findall(r"<rdf:li>([^<]*)", text):
            if keyword.isalpha() and keyword != "hash":
                by_keyword[keyword.lower()].setdefault(own.lower(), own)
    used: set[str] = set()
    items = []
    for keyword, told in sorted(by_keyword.items(), key=lambda entry: (len(entry[1]), entry[0])):
        fresh = [own for key, own in told.items() if key not in used][:7]
        if len(fresh) >= 3:
            items.append({"subject": keyword, "prediction": fresh[0], "references": fresh[1:]})
            used.update(own.lower() for own in fresh)
    return items


def write_golden(coco: Path, items: list[dict], target: Path) -> None:
    flat = [text for item in items for text in (item["prediction"], *item["references"])]
    tokens = dict(zip(flat, tokenize(coco, flat), strict=True))

    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    truths = {i: [" ".join(tokens[r]) for r in item["references"]] for i, item in enumerate(items)}
    given = {i: [" ".join(tokens[item["prediction"]])] for i, item in enumerate(items)}
    golden = {
        "items": items,
        "tokens": [[text, words] for text, words in tokens.items()],
        "cider": [float(score) for score in Cider().compute_score(truths, given)[1]],
        "rouge_l": [float(score) for score in Rouge().compute_score(truths, given)[1]],
        "bleu": [float(score) for score in Bleu(4).compute_score(truths, given, verbose=0)[0]],
    }
    target.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    coco, clipart = Path(sys.argv[1]), Path(sys.argv[2])
    here = Path(__file__).parent
    write_golden(coco, made_up(), here / "captions.json")
    write_golden(coco, openclipart(clipart), here / "openclipart.json")


if __name__ == "__main__":
    main()
