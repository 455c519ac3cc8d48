"""A build that lost most of what it read is no success: it says so, and what would likely put it right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mm1.data.build import build_from
from mm1.data.corpus import Split
from mm1.errors import UserError
from tests.data.sample_sources import picture, write_files, write_lines, write_tar
from tests.integration.test_command_line import mm1, mm1_anew

ANSWER = {"role": "assistant", "content": "Hello."}
CHAT = {"messages": [{"role": "user", "content": "Hi"}, ANSWER]}
SEEN = {"image": "1.png", "messages": [{"role": "user", "content": "<image>What?"}, ANSWER]}


def test_pictures_that_lie_elsewhere(tmp_path: Path) -> None:
    """One document of many is left: the partial corpus is put aside; the remedy works; losses can be accepted."""
    write_files(tmp_path, {"images/1.png": picture(1), "other/x": ""})
    write_lines(tmp_path / "chat.jsonl", [SEEN] * 5 + [CHAT])
    build = ("data", "build", "--from", "messages", tmp_path / "chat.jsonl", "--to", tmp_path / "c")
    result = mm1_anew(*build, data=tmp_path / "data", FORCE_COLOR="1")
    assert result.returncode == 2
    assert "\x1b[1;31merror:" in result.stderr  # in red
    result = mm1(*build, data=tmp_path / "data")
    assert result.returncode == 2
    for words in (
        "5 of 6 records are left out (5x the picture's file is missing)",
        "a folder images/ is there: --set pictures=images",
        "c.incomplete-train",
        "--accept-losses",
    ):
        assert words in result.stderr
    assert not (tmp_path / "c").exists()
    assert [document.text for document in Split(tmp_path / "c.incomplete-train" / "train")] == ["HiHello."]
    account = json.loads((tmp_path / "c.incomplete-train" / "corpus.json").read_text())
    assert account["skipped"]["the picture's file is missing"]["count"] == 5
    result = mm1(*build, "--accept-losses", data=tmp_path / "data")
    assert result.returncode == 0, result.stderr
    assert len(Split(tmp_path / "c" / "train")) == 1
    assert "read: 6 records" in result.stderr
    assert not list(tmp_path.glob("c.*"))
    result = mm1(*build, "--set", "pictures=images", data=tmp_path / "other" / "data")
    assert result.returncode == 0, result.stderr
    assert len(Split(tmp_path / "c" / "train")) == 6


def lost(folder: Path, format_: str, records: list[Any], **options: Any) -> str:
    """Return the message about a build that lost too much; nothing if it is well."""
    try:
        build_from(format_, [str(write_lines(folder / "x.jsonl", records))], folder / "c", workers=1, **options)
    except UserError as error:
        return str(error)
    return ""


def test_how_much_may_be_lost(tmp_path: Path) -> None:
    odd = {"messages": 3}
    assert lost(tmp_path, "messages", [CHAT, odd]) == ""  # half is not more than half
    message = lost(tmp_path, "messages", [CHAT, odd, odd])
    assert "2 of 3 records are left out (2x turns of a conversation that are a number)" in message
    assert lost(tmp_path, "messages", [CHAT, odd, odd], max_losses=0.7) == ""
    assert "1 of 3 records" in lost(tmp_path, "messages", [CHAT, CHAT, odd], max_losses=0.1)
    assert lost(tmp_path, "messages", [CHAT, odd, odd, odd], max_losses=None) == ""


def test_all_pictures(tmp_path: Path) -> None:
    """Pages stay without their pictures, but a corpus without any is not what was meant."""
    page = {"text_list": ["One."], "image_info": [{"image_name": "https://e.org/1.png", "matched_text_index": 0}]}
    message = lost(tmp_path, "mmc4", [page, page])
    assert "none of the 2 pictures could be taken (2x the picture is a web address" in message
    assert "fetch the pictures first" in message
    assert lost(tmp_path, "mmc4", [page, page], max_losses=None) == ""
    write_files(tmp_path, {"1.png": picture(1)})
    here = {"text_list": ["One."], "image_info": [{"image_name": "1.png", "matched_text_index": 0}]}
    assert lost(tmp_path, "mmc4", [page, page, page, here]) == ""
    assert lost(tmp_path, "mmc4", [{"text_list": ["One."]}]) == ""
    unlike = {"text_list": ["One."], "image_info": [{"image_name": "1.png", "matched_text_index": 0, "matched_sim": 0}]}
    assert lost(tmp_path, "mmc4", [unlike], options={"min_similarity": 0.5}) == ""  # as was asked for


def test_remedies(tmp_path: Path) -> None:
    write_files(tmp_path, {"deep/er/coco/1.png": picture(1)})
    message = lost(tmp_path, "messages", [{**SEEN, "image": "coco/1.png"}])
    assert "no document is left, for these reasons: 1x the picture's file is missing" in message
    assert message.endswith(": a folder deep/er/ is there: --set pictures=deep/er")
    message = lost(tmp_path, "messages", [{**SEEN, "image": "train2017/1.png"}])
    assert f"the records say train2017/1.png, but that file lies in {tmp_path}/deep/er/coco" in message
    message = lost(tmp_path, "messages", [{**SEEN, "image": "nowhere.png"}])
    assert f"name the folder of the pictures with --set pictures=FOLDER (they are told from {tmp_path})" in message
    message = lost(tmp_path / "in", "messages", [{**SEEN, "image": f"{tmp_path}/deep/er/coco/1.png"}])
    assert f"--set pictures={tmp_path}/deep/er/coco" in message
    message = lost(tmp_path, "text", [{"content": "words"}])
    assert "name the field of the text with --set column=NAME (it has content)" in message
    assert lost(tmp_path, "text", [{"text": 3}]).endswith("1x text that is a number, for example x.jsonl:1")


def test_a_corpus_that_is_there_stays(tmp_path: Path) -> None:
    assert lost(tmp_path, "messages", [CHAT, CHAT]) == ""
    assert "records are left out" in lost(tmp_path, "messages", [CHAT, {}, {}])
    assert len(Split(tmp_path / "c" / "train")) == 2
    assert len(Split(tmp_path / "c.incomplete-train" / "train")) == 1
    assert lost(tmp_path, "messages", [CHAT, CHAT, CHAT]) == ""
    assert len(Split(tmp_path / "c" / "train")) == 3
    assert not list(tmp_path.glob("c.*"))


NAME = "a [red] b [] [bold] :smile: [1]"


def test_names_with_brackets_print_as_they_are(tmp_path: Path) -> None:
    """Brackets in names and licences are no markup, and no patterns either."""
    folder = tmp_path / NAME
    write_lines(folder / "[x].jsonl", [CHAT] * 3)
    to, licence = folder / NAME, "CC [BY] 4.0 [/] [/bold] :smile:"
    build = ("data", "build", "--from", "messages", folder / "[x].jsonl", "--to", to)
    result = mm1(*build, "--licence", licence, data=tmp_path / "data")
    assert result.returncode == 0, result.stderr
    assert f"\n{NAME} " in result.stderr
    assert f"licence: {licence}" in " ".join(result.stderr.split())  # wrapped below the table
    result = mm1("data", "stats", to / "train", data=tmp_path / "data")
    assert f"{NAME}/train: 3 documents" in result.stdout
    steps = write_files(folder, {"steps.yaml": "- exact-duplicates: {}\n"}) / "steps.yaml"
    result = mm1("data", "clean", to, "--to", folder / f"{NAME} 2", "--steps", steps, data=tmp_path / "data")
    assert result.returncode == 0, result.stderr
    assert f"\n{NAME} 2" in result.stderr
    assert "the same as one before: 2" in result.stderr


@pytest.mark.parametrize("name", ["[red]x[bold]/train", "a[/b]/train", "a:smile:b/train"])
def test_errors_name_things_as_they_are(tmp_path: Path, name: str) -> None:
    result = mm1("data", "show", name, data=tmp_path / "data")
    assert result.returncode == 2
    assert name.removesuffix("/train") in result.stderr


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_captions_in_a_metadata_file(tmp_path: Path, name: str) -> None:
    """As `datasets` has them: the format that reads them is named, and reads them."""
    table = "file_name,text\n1.png,a ramp\n" if name.endswith("csv") else '{"file_name": "1.png", "text": "a ramp"}\n'
    write_files(tmp_path / "set", {"1.png": picture(1), name: table})
    with pytest.raises(UserError, match=r"the captions are in a metadata file, which the format hub reads"):
        build_from("image-folder", [str(tmp_path / "set")], tmp_path / "to", workers=1)
    build_from("hub", [str(tmp_path / "set")], tmp_path / "to", workers=1)
    assert [document.text for document in Split(tmp_path / "to" / "train")] == [" a ramp"]


def test_a_tar_that_is_packed_by_kind(tmp_path: Path) -> None:
    members = [("0.png", picture(1)), ("1.png", picture(2)), ("0.txt", b"a ramp"), ("1.txt", b"a hill")]
    write_tar(tmp_path / "0.tar", members)
    with pytest.raises(UserError, match=r"must follow one another: pack them by name \(tar --sort=name\)"):
        build_from("webdataset", [str(tmp_path / "0.tar")], tmp_path / "to", workers=1)


def test_what_a_record_has_is_told_when_nothing_is_left(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", [{"instruction": "Do it.", "output": "Done."}])
    with pytest.raises(UserError, match=r"for example a.jsonl:1 \(it has instruction, output\)"):
        build_from("messages", [str(file)], tmp_path / "to", workers=1)
