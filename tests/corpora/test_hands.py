"""The corpus hands, from small stand-ins of its packages: nothing held out is trained on, everything said is true."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mm1.corpora import build_corpus
from mm1.corpora.hands.conventions import CONVENTIONS, NEW, TRAINED
from mm1.corpora.hands.english import listed, plural, with_article
from mm1.corpora.hands.questions import NEW_FORMAT
from mm1.corpora.hands.tales import definition
from mm1.corpora.hands.things import Thing, words
from mm1.corpora.hands.world import CARD_WORDS, HANDS, NEW_HAND
from mm1.data.corpus import open_split
from mm1.document import Document, Text
from mm1.evaluate.prompts import build_prompt
from mm1.evaluate.shots import ShotPool
from mm1.evaluate.tasks.items import open_items
from mm1.evaluate.tasks.task import load_task, packaged_tasks
from mm1.look.documents import write_html
from tests.corpora.fake_hands import put_hands
from tests.corpora.fake_sources import needs_dpkg

pytestmark = needs_dpkg

TRAINING = ("captions", "captions-questions", "pages", "text", "conversations", "rounds")
ITEMS = (
    "captions-heldout",
    "names-heldout",
    "lines",
    "new-lines",
    "small-lines",
    "words",
    "scenes-questions",
    "find",
    "read",
    "new-format",
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    data = tmp_path_factory.mktemp("data")
    put_hands(data / "downloads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MM1_DATA", str(data))
        build_corpus("hands", things=30, captions=150, pages=100, texts=40, conversations=60, items=70, size=64)
        yield data / "hands"


def documents(corpus: Path, *splits: str) -> list[Document]:
    return [document for split in splits for document in open_split(str(corpus / split))]


def scenes(corpus: Path, *splits: str) -> Iterator[dict[str, Any]]:
    for document in documents(corpus, *splits):
        yield from document.meta.get("pictures", ())


def test_nothing_held_out_is_in_training(corpus: Path) -> None:
    training = documents(corpus, *TRAINING)
    said = words(document.text for document in training)
    derived = open_split(str(corpus / "text")).corpus["derived"]
    new_things = re.search(r"Held-out things: (.+?)\.", derived)
    assert new_things is not None
    names = new_things[1].split(", ")
    assert len(names) == 3
    assert not said & words([*names, *map(plural, names), *(name + "chen" for name in names)])
    assert {group["hand"] for scene in scenes(corpus, *TRAINING) for group in scene["groups"]} == set(HANDS)
    assert not {group["thing"] for scene in scenes(corpus, *TRAINING) for group in scene["groups"]} & set(names)
    assert not said & {document.meta["answer"] for document in documents(corpus, "words", "words-shots")}
    trained = {document.meta["convention"] for document in documents(corpus, "pages") if "convention" in document.meta}
    assert trained <= {convention.name for convention in TRAINED}
    assert not any(NEW_FORMAT.split("{}")[0] in document.text for document in training)


def test_captions_are_true_of_the_picture(corpus: Path) -> None:
    layouts = Counter[str]()
    for document in documents(corpus, "captions", "captions-heldout"):
        (scene,) = document.meta["pictures"]
        layouts[scene["layout"]] += 1
        phrases = []
        for group in scene["groups"]:
            one = f"{group['size']} {group['thing']}" if group["size"] else group["thing"]
            number = (
                "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
            )
            many = f"{number.split()[group['count']]} {plural(group['thing'])}"
            phrases.append(with_article(one) if group["count"] == 1 else many)
            assert len(group["boxes"]) == group["count"]
        assert document.text.strip() in document.meta["captions"]
        for caption in document.meta["captions"]:
            assert all(phrase in caption for phrase in phrases), caption
            relation = next(
                (r for r in ("to the left of", "to the right of", " above ", " below ") if r in caption), None
            )
            if len(phrases) == 2 and relation and scene["layout"] in ("left-right", "top-bottom"):
                first, second = phrases if relation in ("to the left of", " above ") else reversed(phrases)
                before, after = (first, second) if relation in ("to the left of", " above ") else (second, first)
                assert caption.index(first) < caption.index(second)
                axis = 0 if scene["layout"] == "left-right" else 1
                boxes = {phrase: group["boxes"] for phrase, group in zip(phrases, scene["groups"], strict=True)}
                ends = [box[axis] + box[2] / 2 for box in boxes[before]]
                assert max(ends) <= min(box[axis] + box[2] / 2 for box in boxes[after])
    assert len(layouts) == 7


def test_things_are_in_the_picture_and_apart(corpus: Path) -> None:
    for scene in scenes(corpus, *TRAINING, *ITEMS):
        boxes = [box for group in scene["groups"] for box in group["boxes"]]
        for left, top, width, height in boxes:
            assert min(left, top) >= 0
            assert max(left + width, top + height) <= 64
            assert width == height >= 8
        for one, other in itertools.combinations(boxes, 2):
            apart = any(one[a] + one[2] <= other[a] or other[a] + other[2] <= one[a] for a in (0, 1))
            assert apart, scene


def test_answers_are_true_of_the_picture(corpus: Path) -> None:
    asked = Counter[str]()
    for document in documents(corpus, "captions-questions", "scenes-questions", "find", "read", "new-format"):
        meta, (scene,) = document.meta, document.meta["pictures"]
        groups = {group["thing"]: group for group in scene["groups"]}
        asked[meta["about"]] += 1
        named = {name for group in scene["groups"] for name in (group["thing"], plural(group["thing"]))}
        if meta["about"] == "presence":
            there = re.fullmatch(r"Is there an? (.+)\?", meta["question"])
            assert there is not None
            assert meta["answer"] == ("yes" if there[1] in groups else "no")
        elif meta["about"] == "word":
            assert meta["answer"] == scene["card"]
        elif meta["about"] == "kind":
            assert meta["answer"] in {group["kind"] for group in scene["groups"]}
        elif meta["about"] in ("name", "place"):
            assert meta["answer"] in named | set(scene["places"])
    assert set(asked) == {"name", "kind", "count", "place", "presence", "word", "size"}


@pytest.mark.parametrize("split", ITEMS)
def test_shots_never_show_a_query_or_training(split: str, corpus: Path) -> None:
    queries, shots, training = (
        {image.read() for document in documents(corpus, *splits) for image in document.images}
        for splits in ([split], [f"{split}-shots"], TRAINING)
    )
    assert queries
    assert not queries & shots
    assert not (queries | shots) & training


def test_lines(corpus: Path) -> None:
    for split, conventions in (("lines", TRAINED), ("new-lines", NEW), ("small-lines", TRAINED)):
        for name in (split, f"{split}-shots"):
            counts = Counter(document.meta["convention"] for document in documents(corpus, name))
            assert set(counts) == {convention.name for convention in conventions}
            assert len(set(counts.values())) == 1
            assert {group["hand"] for scene in scenes(corpus, name) for group in scene["groups"]} == set(HANDS)
    names = {group["hand"] for scene in scenes(corpus, "names-heldout") for group in scene["groups"]}
    assert names == {NEW_HAND}


def test_rounds_follow_one_trained_convention(corpus: Path) -> None:
    answers = {convention.name: convention.answer for convention in TRAINED}
    for document in documents(corpus, "rounds"):
        said = [part for part in document.parts if isinstance(part, Text)]
        assert [part.target for part in said] == [False] + [True] * (len(said) - 1)
        assert len(said) == len(document.images) >= 2
        assert document.meta["convention"] in answers


def test_only_the_shots_of_a_page_tell_its_words(corpus: Path) -> None:
    pages: dict[int, list[Document]] = {}
    for document in documents(corpus, "words-shots"):
        pages.setdefault(document.meta["page"], []).append(document)
    for query in documents(corpus, "words"):
        shots = pages[query.meta["page"]]
        (shown,) = query.meta["pictures"][0]["groups"]
        told = {shot.meta["answer"]: shot.meta["pictures"][0]["groups"][0] for shot in shots}
        assert len(shots) == 9
        assert len(told) == 3
        assert told[query.meta["answer"]]["thing"] == shown["thing"]
        assert told[query.meta["answer"]]["hand"] != shown["hand"]
    assert {document.meta["new_things"] for document in documents(corpus, "words")} == {True, False}


def test_texts_of_training_say_what_is_recalled(corpus: Path) -> None:
    said = "\n".join(document.text for document in documents(corpus, "text"))
    items = documents(corpus, "recall")
    assert {item.meta["about"] for item in items} == {"German", "Spanish", "French", "kind", "letters"}
    for item in items:
        begun = re.findall(rf"(?m)(?:^|\. ){re.escape(item.meta['context'])} ([^.,]+)[.,]", said)
        assert set(begun) <= {item.meta["answer"]}
    recalled = [f"{item.meta['context']} {item.meta['answer']}" in said for item in items]
    assert sum(recalled) > 0.5 * len(recalled)  # 40 texts have 3 to 6 of 11 sentences on 27 things


@pytest.mark.parametrize("name", [name for name in packaged_tasks() if name.startswith("hands-")])
def test_a_task_shows_eight_shots_before_a_query(name: str, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(corpus.parent))
    task = load_task(name)
    items, pool = open_items(task.data), open_items(task.pool)
    query = items[0]
    shots = ShotPool(task, pool).draw(query, 8, seed=0)
    assert len({shot.id for shot in shots}) == 8
    prompt = build_prompt(task, query, shots)
    assert len(prompt.images) == (0 if name == "hands-text" else 9)


def test_pages_can_be_looked_at(corpus: Path, tmp_path: Path) -> None:
    write_html(documents(corpus, "pages"), tmp_path / "pages.html", "pages", limit=5)
    assert (tmp_path / "pages.html").read_text().count("data:image/") >= 5


def test_no_two_conventions_agree_on_many_things() -> None:
    things = [
        Thing("fox", "mammal", "Fuchs", "zorro", "renard", "alert mammal"),
        Thing("hot dog", "food", "Hotdog", "perrito caliente", "hot dog", "a frankfurter"),
        Thing("bus", "vehicle", "Bus", "autobús", "bus", "a vehicle"),
        Thing("key", "tool", "Schlüssel", "llave", "clé", "a device"),
        Thing("tulip", "plant", "Tulpe", "tulipán", "tulipe", "a herb"),
    ]
    for one, other in itertools.combinations(CONVENTIONS, 2):
        assert sum(one.answer(thing) == other.answer(thing) for thing in things) <= 2, (one.name, other.name)
    assert len(NEW) * 3 == len(CONVENTIONS) == 105


@pytest.mark.parametrize(
    ("one", "many"),
    [("fox", "foxes"), ("mouse", "mice"), ("butterfly", "butterflies"), ("key", "keys"), ("potato", "potatoes"),
     ("hot dog", "hot dogs"), ("taco", "tacos"), ("bus", "buses"), ("wolf", "wolves"), ("church", "churches")],
)  # fmt: skip
def test_plural(one: str, many: str) -> None:
    assert plural(one) == many


def test_sentences() -> None:
    assert listed(["a", "b", "c"]) == "a, b and c"
    fox = Thing("fox", "mammal", "Fuchs", "zorro", "renard", "alert carnivorous mammal with a bushy tail")
    assert definition(fox) == "A fox is an alert carnivorous mammal with a bushy tail."
    penguin = Thing(
        "penguin", "bird", "Pinguin", "pingüino", "pingouin", "short-legged flightless birds of cold regions"
    )
    assert definition(penguin) == "Penguins are short-legged flightless birds of cold regions."
    assert len(set(CARD_WORDS)) == len(CARD_WORDS)
