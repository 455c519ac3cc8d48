"""A model is pushed with a card that is right, runs, and tells nothing of the machine; and is pulled whole."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from mm1.cli import app
from mm1.errors import UserError
from mm1.evaluate.caption import caption_image
from mm1.model import MM1Config
from mm1.processing.processor import MM1Processor
from mm1.publish.card import CardSubject, write_card
from mm1.publish.facts import read_facts
from mm1.publish.private import public
from mm1.publish.pull import pull
from mm1.publish.push import parse_target, push
from mm1.publish.whole import check_whole
from tests.conftest import png
from tests.model.builders import tiny_model
from tests.publish.conftest import use_hub
from tests.publish.fake_hub import TOKEN, FakeHub

SAVED = Path(__file__).parent.parent / "model" / "saved"


def mm1(*arguments: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "mm1", *arguments], env=given, capture_output=True, text=True, check=False
    )


def texts(folder: Path) -> str:
    """Return the names and the texts of a folder's files."""
    files = [file for file in folder.iterdir() if file.suffix != ".safetensors"]
    return "\n".join(text for file in files for text in (file.name, file.read_text("utf-8")))


def test_the_card(runs: Path) -> None:
    push("chat", "out", licence="apache-2.0")
    card = ModelCard.load("out/README.md")
    data = card.data.to_dict()
    assert (data["license"], data["library_name"], data["pipeline_tag"]) == (
        "apache-2.0", "transformers", "image-text-to-text",
    )  # fmt: skip
    # Of the lineage, and never a folder (huggingface/transformers#33922).
    assert data["base_model"] == ["openai/clip-vit-large-patch14", "HuggingFaceTB/SmolLM2-135M-Instruct"]
    assert {"mm1", "conversational"} <= set(data["tags"])
    (result,) = card.data.eval_results or []
    assert (result.dataset_name, result.dataset_config, result.metric_value) == ("colours", "0-shot", 0.812)
    text = card.text
    assert (
        "| colours | 0 | accuracy | 81.2\u00a0% | 80.0\u00a0% to 82.0\u00a0% | 500 | 25.0\u00a0% (majority) |" in text
    )
    assert "90.0" not in text, "a score of other weights"
    assert "| tiny-base | pages/train | chat | CC BY 4.0 | 7 |" in text
    assert "https://example.org/a/b.tar, x.tar |" in text
    assert "| tiny-chat | talks/train | chat | not known | 7 |" in text
    assert "Not known where the model was published: talks/train." in text
    assert "| tiny-chat | the whole model | tiny-base (of the same author) |" in text
    assert "Plan hash `55aa`" in text
    assert "at most 10 images and 64 tokens" in text
    assert "title   = {{MM1}: Methods" in text
    assert {file.name for file in Path("out").iterdir()} == {
        "README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
        "modeling_mm1.py", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip


def test_the_code_of_the_cards_runs_as_it_stands(runs: Path) -> None:
    """In a process of its own. What it prints is what `mm1 caption --question` says."""
    codes = []
    for run in ("chat", "base"):
        push(run, f"out-{run}")
        (code,) = re.findall(r"```python\n(.*?)```", Path(f"out-{run}/README.md").read_text(), re.DOTALL)
        assert f'MODEL = "out-{run}"' in code
        codes.append(code)
    both = "\nprint('-----')\n".join(codes)
    result = subprocess.run([sys.executable, "-c", both], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    Path("red.png").write_bytes(png("red", 336))
    said = result.stdout.decode().split("-----\n")
    for run, question, printed in zip(("chat", "base"), ("What color is it?", "what color is it?"), said, strict=True):
        answer = caption_image(run, Path("red.png"), question)
        assert printed.startswith(f"{answer}\n")  # an untrained model's answer may have a line's end within
        assert answer


def test_nothing_of_the_machine_is_published(runs: Path) -> None:
    config = json.loads(Path("chat/model/config.json").read_text())
    config["_name_or_path"] = str(runs / "base" / "model")
    config["text_config"]["_name_or_path"] = "/scratch/bob/models--owner--name/snapshots/0a1b"
    Path("chat/model/config.json").write_text(json.dumps(config))
    Path("chat/model/optimizer.pt").write_bytes(b"pickle")
    Path("chat/model/.git").mkdir()
    push("chat", "out")
    said = texts(Path("out"))
    for private in (str(runs), str(runs.parent), "alice", "bob", f"/{getpass.getuser()}/"):
        assert private not in said
    assert json.loads(Path("out/config.json").read_text())["_name_or_path"] == "model"
    assert json.loads(Path("out/config.json").read_text())["text_config"]["_name_or_path"] == "owner/name"


@pytest.mark.parametrize(
    ("file", "secret", "what"),
    [
        ("config.json", "{home}/x", "the path of your home folder"),
        ("chat_template.jinja", "{host}", "the name of this machine"),
        ("generation_config.json", TOKEN, "a token of the Hub"),
        ("tokenizer.json", TOKEN, "a token of the Hub"),
        ("model.safetensors", "{home}/x", "the path of your home folder"),
    ],
)
def test_what_tells_of_the_machine_is_refused(
    file: str, secret: str, what: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node0815")
    secret = secret.format(home=runs, host="node0815")
    place = Path("chat/model", file)
    if file == "tokenizer.json":
        add_word(place, secret)
    elif file.endswith(".json"):
        place.write_text(json.dumps({**json.loads(place.read_text()), "note": f"see {secret}"}, indent=1))
    elif file.endswith(".jinja"):
        place.write_text(place.read_text() + f"{{# {secret} #}}")
    else:
        save_file(load_file(place), place, {"format": "pt", "made": f"in {secret}"})
    with pytest.raises(UserError, match=rf"{re.escape(file)}, line \d+: it tells {what}, so nothing was pushed"):
        push("chat", "out")
    assert not Path("out").exists()


def add_word(tokenizer: Path, word: str) -> None:
    content = json.loads(tokenizer.read_text())
    content["model"]["vocab"][word] = len(content["model"]["vocab"])
    tokenizer.write_text(json.dumps(content))


def test_words_of_a_vocabulary_are_nobodys(runs: Path) -> None:
    """`/root/` and the like are tokens of every tokenizer of code."""
    add_word(Path("chat/model/tokenizer.json"), f"{runs}/x/{getpass.getuser()}/")
    push("chat", "out")


def test_paths_become_names() -> None:
    given = {"a": ["/home/al/My Files/x.tar", "see /data/x/y.json, or ~/z", "file:///home/al/b.png"], "b": 5}
    assert public(given) == {"a": ["x.tar", "see y.json, or z", "b.png"], "b": 5}
    same = ["https://example.org/a/b", "owner/name", "and/or", "1/2", "a/b/c.yaml", "data: {x: y}", "/", "~", "a: /"]
    assert public(same) == same
    assert public("/home/al/.cache/huggingface/hub/models--owner--name.x/snapshots/0a1b") == "owner/name.x"


def test_an_edited_card_is_kept(runs: Path) -> None:
    push("chat", "out")
    card = Path("out/README.md")
    card.write_text(card.read_text().replace("## Limits", "## My own words"))
    push("out", "again", licence="mit")
    text = Path("again/README.md").read_text()
    assert "## My own words" in text
    assert 'MODEL = "again"' in text
    assert "mm1 chat again picture.jpg" in text
    assert ModelCard(text).data.to_dict()["license"] == "mit"
    card.write_text("---\nlicense: [\n---\n")
    with pytest.raises(UserError, match=r"README\.md: its metadata can't be read"):
        push("out", "third")


def test_targets(runs: Path) -> None:
    assert parse_target("owner/name").repository == "owner/name"
    assert parse_target("owner/name@v1").revision == "v1"
    assert parse_target("hub:chat/name", "v1").revision == "v1"
    assert parse_target("out").folder == Path("out")
    assert parse_target("chat/out").folder == Path("chat/out")
    for to, revision, sentence in (
        ("chat", None, "chat exists already"),
        ("out", "v1", "out is a folder, and folders have no revisions"),
        ("owner/name@v1", "v2", "both name a revision"),
    ):
        with pytest.raises(UserError, match=sentence):
            parse_target(to, revision)


def test_a_step_says_that_it_is_one(runs: Path) -> None:
    """What a step's model is, `tests/model/test_resolve.py` has; here is the card."""
    facts, config = read_facts(Path("base")), MM1Config.from_pretrained("base/model")
    processor = MM1Processor.from_pretrained("base/model")
    of_step, of_last = (
        write_card(CardSubject("x", True, config, processor, 10, facts=facts, step=step)).text for step in (4, None)
    )
    assert "This model is of step 4, not of the last." in of_step
    assert "This model is of step" not in of_last


@pytest.mark.parametrize("name", ["plain", "chat"])
def test_models_of_older_versions_are_whole(name: str) -> None:
    check_whole(SAVED / name, name)


def test_a_mixture_of_experts_is_whole(models: Path, tmp_path: Path) -> None:
    for file in (models / "plain").iterdir():
        if file.name.startswith(("token", "processor")):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    tiny_model(moe_num_experts=4).save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    check_whole(tmp_path, "moe")
    sorted(tmp_path.glob("*.safetensors"))[1].unlink()
    with pytest.raises(UserError, match=r"moe: model-00002-of-.*\.safetensors is missing or damaged"):
        check_whole(tmp_path, "moe")


def test_what_is_no_whole_model(runs: Path) -> None:
    place = Path("chat/model")
    weights = place / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(UserError, match=r"chat: .*model\.safetensors is missing or damaged|weights can't be read"):
        push("chat", "out")
    save_file({"x": torch.zeros(1)}, weights)
    with pytest.raises(UserError, match="chat: not a whole model: the weight .* is missing"):
        push("chat", "out")
    weights.unlink()
    (place / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match="no weights in safetensors, and mm1 reads no others"):
        pull("chat")
    weights.write_bytes(whole)
    (place / "processor_config.json").unlink()
    (place / "tokenizer.json").rename(place / "aside")
    with pytest.raises(UserError, match="chat: not a whole model"):
        push("chat", "out")
    (place / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(UserError, match="a model of type 'llava', and only MM1 models"):
        pull("chat")
    assert not Path("out").exists()


def test_a_folder_is_pulled(runs: Path) -> None:
    push("chat", "out")
    Path("out/pytorch_model.bin").write_bytes(b"pickle")
    assert pull("out", Path("copy")) == Path("copy")
    assert not Path("copy/pytorch_model.bin").exists()
    assert Path("copy/README.md").exists()
    with pytest.raises(UserError, match="copy exists already"):
        pull("out", Path("copy"))
    with pytest.raises(UserError, match="out is not on the Hub"):
        pull("out", revision="v1")


def test_dry_run(runs: Path) -> None:
    result = CliRunner().invoke(app, ["push", "chat", "--to", "owner/name", "--dry-run"])
    assert result.exit_code == 0, result.output
    assert 'MODEL = "owner/name"' in result.stdout
    assert "nowhere (dry run); it would go to owner/name" in result.stderr
    assert "model.safetensors" in result.stderr
    assert "no licence is chosen" in result.stderr
    assert not Path("owner").exists()


def test_to_the_hub_and_back(hub: FakeHub, runs: Path) -> None:
    result = mm1("push", "chat", "--to", "owner/name")
    assert result.returncode == 0, result.stderr
    assert f"the model: {hub.address}/owner/name" in result.stderr
    assert hub.private["owner/name"] is True
    files = hub.repositories["owner/name"]["main"]
    assert 'MODEL = "owner/name"' in files["README.md"].decode()
    files["pytorch_model.bin"] = b"pickle"
    files["model-00001-of-00002.safetensors"] = b"of an earlier push"
    push("chat", "owner/name", revision="v1", private=False)
    assert hub.private["owner/name"] is True, "a repository that exists stays as it is"
    branch = hub.repositories["owner/name"]["v1"]
    assert "model-00001-of-00002.safetensors" not in branch, "the weights would be mixed of two models"
    assert pull("owner/name@v1", Path("copy")) == Path("copy")
    assert {file.name for file in Path("copy").iterdir()} == set(branch) - {"pytorch_model.bin"}
    assert not any("pytorch_model.bin" in call for call in hub.calls if call.startswith("GET"))
    Path("red.png").write_bytes(png("red"))
    answers = [caption_image(model, Path("red.png")) for model in ("chat", "copy", "owner/name@v1")]
    assert answers[0] == answers[1] == answers[2]


def test_what_the_hub_refuses(hub: FakeHub, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["owner/name"] = {"main": {"config.json": b'{"model_type": "llava"}'}}
    with pytest.raises(UserError, match="owner/none: the Hub has no such model, or your token has no access"):
        pull("owner/none")
    with pytest.raises(UserError, match="owner/name@v9: the model has no such revision: name a branch"):
        pull("owner/name", revision="v9")
    with pytest.raises(UserError, match="owner/name: a model of type 'llava'"):
        pull("owner/name")
    with pytest.raises(UserError, match="a/b/c: not the id of a model on the Hub: write owner/name"):
        pull("hub:a/b/c")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "b" * 30)
    with pytest.raises(UserError, match=r"owner/name: the Hub refuses your token \(403\)") as caught:
        push("chat", "owner/name")
    assert "bbbb" not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="needs a token: run `hf auth login`, or set HF_TOKEN, and try again"):
        push("chat", "owner/name")


def test_without_a_network(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:  # a port that is taken, and where nobody answers
        nobody.bind(("127.0.0.1", 0))
        use_hub(f"http://127.0.0.1:{nobody.getsockname()[1]}", tmp_path / "hf", monkeypatch)
        for call in (lambda: push("chat", "owner/name"), lambda: pull("owner/name")):
            with pytest.raises(UserError, match="owner/name: the Hub is out of reach"):
                call()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        for call in (lambda: push("chat", "owner/name"), lambda: pull("owner/name")):
            with pytest.raises(UserError, match="owner/name: (HF_HUB_OFFLINE forbids|the Hub is out of reach)"):
                call()
