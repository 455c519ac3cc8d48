"""Every step of cleaning that looks at one document."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

from mm1.clean import STEPS, make_steps, read_steps
from mm1.clean.step import Dropped
from mm1.document import Document, Image, Kind, Text
from mm1.errors import UserError
from tests.data.sample_sources import picture

PROSE = (
    "The harbour lies below the town. Boats come in with the evening tide, and people gather on the quay to see what "
    "was caught that day. Some buy fish; others only talk. Later, when lamps are lit along the water, it grows quiet."
)


@dataclass
class Outcome:
    document: Document | None
    dropped: Dropped


def apply(name: str, document: Document, **options: Any) -> Outcome:
    (named,) = make_steps([{name: options}])
    dropped = Dropped()
    return Outcome(named.step.applier(Path("unused"), range(1))(0, document, dropped), dropped)


def page(*parts: str | Image, kind: Kind = "interleaved") -> Document:
    return Document("x", kind, tuple(Text(part) if isinstance(part, str) else part for part in parts))


def sized(width: int, height: int, path: str | None = None) -> Image:
    return Image(picture(1, (width, height)), path)


def test_image_size_drops_pictures_and_their_space() -> None:
    small = sized(50, 200)
    document = page(sized(200, 150), " one\n", small, small, " two\n", sized(201, 100), " three\n", sized(300, 150))
    outcome = apply("image-size", document)
    assert outcome.document == page(sized(200, 150), " one\n", "two\n", "three\n", sized(300, 150))
    assert (outcome.dropped.images, outcome.dropped.documents) == (3, 0)
    reasons = {"picture: a side below 100 pixels": 2, "picture: sides of a ratio above 2": 1}
    assert outcome.dropped.reasons.counts == reasons
    large = apply("image-size", page(sized(300, 200), " a"), max_side=299)
    assert large.document == page("a")


def test_captions_and_conversations_do_not_outlive_their_picture() -> None:
    caption = apply("image-size", page(sized(10, 10), " a", kind="caption"))
    assert caption.document is None
    assert (caption.dropped.documents, caption.dropped.images) == (1, 1)
    chat = apply("image-size", page(sized(200, 200), sized(10, 10), "a", kind="chat"))
    assert chat.document is None
    assert apply("image-size", page(sized(10, 10))).document is None


def test_broken_pictures_are_dropped_by_size_or_by_decoding() -> None:
    broken, cut = Image(b"no picture"), Image(picture(1, (200, 200))[:150])
    assert apply("image-size", page(broken, "a\n")).document == page("a\n")
    assert apply("image-size", page(cut, " a\n")).document is not None  # the header is fine
    outcome = apply("decodable", page(cut, " a\n", sized(9, 9)))
    assert outcome.document == page("a\n", sized(9, 9))
    assert dict(outcome.dropped.reasons.counts) == {"picture: it can't be decoded": 1}


def test_image_address() -> None:
    good, bad = sized(9, 9, "https://e.org/cat.png"), sized(9, 9, "https://e.org/Site-LOGO.png")
    assert apply("image-address", page(good, bad, sized(9, 9), " a")).document == page(good, sized(9, 9), " a")
    assert apply("image-address", page(good, bad), words=["cat"]).document == page(bad)
    assert apply("image-address", page(good, bad), words=[]).document == page(good, bad)


def test_copies_in_document_keep_the_first() -> None:
    one, again, other = sized(9, 9), replace(sized(9, 9), path="elsewhere.png"), sized(9, 8)
    assert apply("copies-in-document", page(one, " a\n", again, " b\n", other)).document == page(
        one, " a\n", "b\n", other
    )


@pytest.mark.parametrize(("pictures", "kept"), [(0, False), (1, True), (3, True), (4, False)])
def test_image_count(pictures: int, kept: bool) -> None:
    document = page("a\n", *[sized(9, n + 1) for n in range(pictures)])
    assert (apply("image-count", document, max=3).document == document) is kept
    assert apply("image-count", replace(document, kind="text"), max=3).document is not None


def test_text_length() -> None:
    assert apply("text-length", page("  ab \n"), min_characters=3).document is None
    assert apply("text-length", page("abc"), min_characters=3, max_characters=3).document is not None
    assert apply("text-length", page("long " * 200_001)).document is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, None),
        ("Wer reitet so spät durch Nacht und Wind? Es ist der Vater mit seinem Kind; er hat den Knaben wohl in dem "
         "Arm, er fasst ihn sicher, er hält ihn warm.", None),
        ("港は町の下にある。夕方の潮とともに船が入ってきて、人々は岸壁に集まり、その日の獲物を見る。", None),
        ("a b c d " * 30, "mean length of words outside of 3 to 10"),
        ("abcdefghijklmnop " * 30, "mean length of words outside of 3 to 10"),
        (PROSE.replace(" ", " # "), "mean length of words outside of 3 to 10"),
        (PROSE.replace(" ", "... ", 8), "many # or ellipses"),
        ("\n".join(f"- {line}" for line in PROSE.split(". ")), "most lines begin with a bullet"),
        ("\n".join(f"{line}…" for line in PROSE.split(". ")), "many lines end with an ellipsis"),
        (" ".join(f"{number}" for number in range(1000, 1030)) + " " + PROSE, "many words without a letter"),
        ("\n".join(["Please accept our cookies today."] * 8), "many lines came before"),
        (PROSE + " buy cheap watches" * 20, "one 2-gram of words makes up much of the text"),
        (" ".join([PROSE] * 2), "repeated 5-grams of words make up much of the text"),
        ("too few words...", None),
    ],
)  # fmt: skip
def test_text_quality(text: str, reason: str | None) -> None:
    outcome = apply("text-quality", page(text))
    assert list(outcome.dropped.reasons.counts) == ([] if reason is None else [reason])
    assert (outcome.document is None) is (reason is not None)
    assert apply("text-quality", page(text, kind="caption")).document is not None


def test_configuration_mistakes() -> None:
    with pytest.raises(UserError, match="no step is called 'image-sise': did you mean image-size"):
        make_steps(["image-sise"])
    with pytest.raises(UserError, match="step 'image-size' has no option 'min_sides': did you mean min_side"):
        make_steps([{"image-size": {"min_sides": 3}}])
    with pytest.raises(UserError, match="must be of type list"):
        make_steps([{"image-count": {"kinds": "text"}}])
    with pytest.raises(UserError, match="one name with its options"):
        make_steps([{"image-size": {}, "decodable": {}}])
    with pytest.raises(UserError, match="must be a list"):
        make_steps("image-size")


def test_read_steps(tmp_path: Path) -> None:
    file = tmp_path / "steps.yaml"
    file.write_text("- image-size: {min_side: 64}\n- exact-duplicates\n- decodable:\n")
    assert [named.name for named in make_steps(read_steps(file))] == ["image-size", "exact-duplicates", "decodable"]
    file.write_text("image-size: {}\n")
    with pytest.raises(UserError, match="write a YAML list of steps"):
        read_steps(file)
    file.write_text("[")
    with pytest.raises(UserError, match="can't be read"):
        read_steps(file)


def test_all_steps_have_defaults_of_their_options() -> None:
    assert len(make_steps(list(STEPS))) == len(STEPS)


def test_pillow_truncation_setting_is_untouched() -> None:
    from PIL import ImageFile

    apply("decodable", page(Image(io.BytesIO(picture()).getvalue()), "a"))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert PILImage.MAX_IMAGE_PIXELS is not None
