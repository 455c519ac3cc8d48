"""Training of tiny encoders on small real corpora, what comes out, and what users get wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoProcessor,
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    pipeline,
)

from mm1.data.corpus import write_corpus
from mm1.document import Document, Image, Text
from mm1.encoder.pictures import PairCollate, PictureSample
from mm1.encoder.pretrain import pretrain_encoder
from mm1.errors import UserError
from mm1.model.resolve import resolve_model
from mm1.model.towers import load_tower, pixel_statistics
from mm1.recipe import EncoderRecipe, load_recipe, packaged_recipes
from mm1.train.pretrain import pretrain
from tests.conftest import breaking_at, png, tiny_documents


def train(file: Path, run: Path, *settings: str) -> list[dict]:
    pretrain_encoder(load_recipe(str(file), settings, schema=EncoderRecipe), run)
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(lines: list[dict]) -> list[float]:
    return [line["loss"] for line in lines]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def make_corpus(data: Path, name: str, documents: list[Document]) -> str:
    write_corpus(data / name, {"train": documents}, licence="none", sources=["made up"])
    return f"data.mixture.caption.sources=[{{corpus: {name}/train}}]"


@pytest.fixture
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory of this test alone."""
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_contrastive_run_learns_and_holds_a_clip_model(
    kind: str, encoder_recipe: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    lines = train(encoder_recipe, run, f"objective.kind={kind}", "train.steps=40", "train.learning_rate=0.01")
    assert losses(lines)[-1] < losses(lines)[0]
    assert {"scale", "equal_captions", "grad_norm/vision", "grad_norm/text", "grad_norm/temperature"} <= lines[0].keys()
    assert lines[-1]["images"] == 40 * 8
    environment = json.loads((run / "environment.json").read_text())
    model = AutoModel.from_pretrained(run / "model")
    assert isinstance(model, CLIPModel)
    assert model.logit_scale.exp().item() == pytest.approx(lines[-1]["scale"], rel=0.05)
    # SigLIP's bias is the one parameter that a CLIP model has no place for; it is kept in the configuration.
    extra = 1 if kind == "siglip" else 0
    assert sum(p.numel() for p in model.parameters()) + extra == sum(environment["parameters"].values())
    assert hasattr(model.config, "logit_bias") == (kind == "siglip")


def test_others_code_uses_the_result(encoder_recipe: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(encoder_recipe, run, "train.steps=60", "train.learning_rate=0.01", "train.batch_size=16")
    classify = pipeline("zero-shot-image-classification", model=str(run / "model"))
    picture = PILImage.open(io.BytesIO(png("red")))
    found = classify(picture, candidate_labels=["red", "blue"], hypothesis_template="A {} square")
    assert found[0]["label"] == "red"
    processor = AutoProcessor.from_pretrained(run / "model")
    ids = processor.tokenizer(["A red square", "a RED square and more"])["input_ids"]
    assert ids[0][:3] == ids[1][:3]  # no capitals
    assert processor.tokenizer.model_max_length == 12


def test_a_run_gives_mm1_its_tower(encoder_recipe: Path, recipe_file: Path, data: Path, tmp_path: Path) -> None:
    for kind in ("clip", "aim"):
        run = tmp_path / kind
        train(encoder_recipe, run, f"objective.kind={kind}", "objective.head_depth=1", "train.steps=3")
        tower = load_tower(str(resolve_model(run)))
        assert isinstance(tower, CLIPVisionModel)
        settings = [f"model.vision.from={run}", "train.steps=3", "train.learning_rate=1e-30"]
        multimodal = pretrain(load_recipe(str(recipe_file), settings), tmp_path / f"mm1-{kind}")
        theirs = load_file(multimodal / "model.safetensors")
        for name, tensor in tower.state_dict().items():
            assert torch.allclose(theirs[f"model.vision_tower.{name}"], tensor), name


def test_stopped_at_any_step_it_comes_to_the_same_end(encoder_recipe: Path, data: Path, tmp_path: Path) -> None:
    settings = ["data.crop_area=[0.5, 1]", "data.flip=0.5"]
    whole = train(encoder_recipe, tmp_path / "whole", *settings)
    run = tmp_path / "run"
    with breaking_at(6):
        train(encoder_recipe, run, *settings)
    assert losses(train(encoder_recipe, run, *settings)) == losses(whole)
    ours, theirs = weights(run), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_workers_change_nothing(encoder_recipe: Path, data: Path, tmp_path: Path) -> None:
    settings = ["data.crop_area=[0.5, 1]", "train.steps=4"]
    alone = train(encoder_recipe, tmp_path / "alone", *settings)
    assert losses(train(encoder_recipe, tmp_path / "two", *settings, "data.workers=2")) == losses(alone)


def test_aim_accumulates_micro_batches(encoder_recipe: Path, data: Path, tmp_path: Path) -> None:
    settings = ["objective.kind=aim", "objective.head_depth=1"]
    whole = train(encoder_recipe, tmp_path / "whole", *settings)
    parts = train(encoder_recipe, tmp_path / "parts", *settings, "train.micro_batch_size=2")
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-5)
    assert losses(whole)[-1] < losses(whole)[0]
    assert isinstance(AutoModel.from_pretrained(tmp_path / "whole" / "model"), CLIPVisionModel)


def test_a_finish_at_high_resolution_goes_on_from_both_towers(encoder_recipe: Path, data: Path, tmp_path: Path) -> None:
    train(encoder_recipe, tmp_path / "low", "train.steps=3")
    settings = [f"model.from={tmp_path / 'low'}", "model.vision.image_size=32", "train.steps=3"]
    train(encoder_recipe, tmp_path / "high", *settings, "train.learning_rate=1e-30")
    low, high = weights(tmp_path / "low"), weights(tmp_path / "high")
    table = "vision_model.embeddings.position_embedding.weight"
    assert len(low[table]) == 1 + 4
    assert len(high[table]) == 1 + 16
    assert all(torch.allclose(low[name], high[name]) for name in low if name != table)
    model = AutoModel.from_pretrained(tmp_path / "high" / "model")
    assert model.config.vision_config.image_size == 32
    assert AutoProcessor.from_pretrained(tmp_path / "high" / "model").image_processor.size["height"] == 32


def test_documents_without_one_picture_and_a_caption_are_counted(
    encoder_recipe: Path, own_data: Path, tmp_path: Path
) -> None:
    picture = Image(png("red"))
    more = [
        Document("none", "caption", (Text("only words"),)),
        Document("two", "caption", (picture, Text(" one"), picture, Text(" two"))),
        Document("silent", "caption", (picture,)),
        Document("long", "caption", (picture, Text(" word" * 40))),
    ]
    source = make_corpus(own_data, "mixed", [*tiny_documents("caption", 9), *more])
    train(encoder_recipe, tmp_path / "clip", source, "train.steps=3")
    environment = json.loads((tmp_path / "clip" / "environment.json").read_text())
    assert environment["left_out"] == {"mixed/train": {"no picture": 1, "several pictures": 1, "no caption": 1}}
    plan = json.loads((tmp_path / "clip" / "plan" / "plan.json").read_text())
    assert plan["sources"]["mixed/train"]["documents_per_epoch"] == 10
    assert plan["sources"]["mixed/train"]["sequences"] == plan["sources"]["mixed/train"]["documents"] == 24
    train(encoder_recipe, tmp_path / "aim", source, "train.steps=3", "objective.kind=aim", "objective.head_depth=0")
    environment = json.loads((tmp_path / "aim" / "environment.json").read_text())
    assert environment["left_out"] == {"mixed/train": {"no picture": 1, "several pictures": 1}}


def test_the_mixture_is_exact(encoder_recipe: Path, own_data: Path, tmp_path: Path) -> None:
    make_corpus(own_data, "one", tiny_documents("caption", 20))
    make_corpus(own_data, "other", tiny_documents("caption", 7))
    sources = "[{corpus: one/train, weight: 3}, {corpus: other/train, weight: 1}]"
    train(encoder_recipe, tmp_path / "run", f"data.mixture.caption.sources={sources}", "train.steps=4")
    plan = json.loads((tmp_path / "run" / "plan" / "plan.json").read_text())
    assert {name: source["sequences"] for name, source in plan["sources"].items()} == {
        "one/train": 24,
        "other/train": 8,
    }


def test_another_picture_stands_in_for_one_that_cant_be_read(
    encoder_recipe: Path, own_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    broken = Document("broken", "caption", (Image(b"no picture"), Text(" a broken square")))
    source = make_corpus(own_data, "damaged", [*tiny_documents("caption", 7), broken])
    lines = train(encoder_recipe, tmp_path / "run", source, "train.steps=3")
    assert lines[-1]["bad_images"] == 3  # once an epoch
    assert lines[-1]["images"] == 24
    assert "document 'broken': not a readable picture" in capfd.readouterr().err.replace("\n", " ")


def test_a_corpus_of_broken_pictures_is_named(encoder_recipe: Path, own_data: Path, tmp_path: Path) -> None:
    broken = [Document(str(i), "caption", (Image(b"no"), Text(f" number {i}"))) for i in range(4)]
    source = make_corpus(own_data, "broken", broken)
    with pytest.raises(UserError, match=r"broken/train: .* pictures in a row can't be read"):
        train(encoder_recipe, tmp_path / "run", source)


def test_captions_that_are_all_alike_are_refused(encoder_recipe: Path, own_data: Path, tmp_path: Path) -> None:
    same = [Document(str(i), "caption", (Image(png("red")), Text(" a picture"))) for i in range(9)]
    source = make_corpus(own_data, "same", same)
    with pytest.raises(UserError, match=r"same/train: all captions are the same \('a picture'\)"):
        train(encoder_recipe, tmp_path / "run", source)


def test_a_corpus_without_pictures_is_refused(encoder_recipe: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prose/train: no document has one picture and a caption \(40 have no picture"):
        train(encoder_recipe, tmp_path / "run", "data.mixture.caption.sources=[{corpus: prose/train}]")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.batch_size=1"], "batch_size 1 is too small for a contrastive loss"),
        (["train.micro_batch_size=4"], "micro_batch_size 4: a contrastive loss compares the whole batch at once"),
        (["model.vision.image_size=20"], "image_size 20 is not a multiple of patch_size 8"),
        (["train.learning_rate=null"], "learning_rate is missing"),
        (["train.freeze=[vision]"], "train.freeze is for multimodal training only"),
        (["model.from=x", "objective.kind=aim"], "for AIM set model.vision.from instead"),
        (["model.vision.attention=flex_attention", "objective.kind=aim"], "doesn't support AIM's prefix mask"),
        (["data.crop_area=[0.5, 0.2]"], r"crop_area \[0.5, 0.2\]"),
        (["data.mixture.caption.images_per_sequence=2"], "an encoder's sequence has one picture"),
        (["model.text.num_heads=3"], "model.text: hidden_size 16 is not a multiple of num_heads 3"),
        (
            ["train.batch_size=9", "train.micro_batch_size=9", "model.vision.from=/dev"],
            "model.vision.from: '/dev' is no model",
        ),
        (["model.from=/dev"], "model.from: '/dev' is no model"),
    ],
)
def test_mistakes_are_named(
    settings: list[str], message: str, encoder_recipe: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        train(encoder_recipe, tmp_path / "run", *settings)


def test_packaged_recipes_are_valid() -> None:
    names = [name for name in packaged_recipes() if name.startswith(("clip-", "aim-"))]
    assert {"clip-demo", "aim-demo", "clip-vit-l-14-336", "clip-vit-h-14-378", "aim-1b"} <= set(names)
    for name in names:
        recipe = load_recipe(name, schema=EncoderRecipe)
        assert recipe.name == name
        assert recipe.model.vision.image_size % recipe.model.vision.patch_size == 0


def test_batches_differ_by_seed_and_step_only(encoder_recipe: Path, data: Path, tmp_path: Path) -> None:
    settings = ["data.crop_area=[0.3, 1]", "train.steps=3"]
    first, other = (
        losses(train(encoder_recipe, tmp_path / f"run-{seed}", *settings, f"seed={seed}")) for seed in (0, 1)
    )
    assert np.abs(np.array(first) - np.array(other)).max() > 1e-4


def test_from_another_tower_its_own_sizes_and_statistics_hold(
    encoder_recipe: Path, recipe_file: Path, data: Path, tmp_path: Path
) -> None:
    """Of 4-pixel patches where the recipe says 8, normalised otherwise than CLIP does."""
    tower = tmp_path / "tower"
    config = CLIPVisionConfig(
        image_size=16, patch_size=4, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    CLIPVisionModel(config).save_pretrained(tower)
    CLIPImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.25] * 3).save_pretrained(tower)
    for kind in ("clip", "aim"):
        run = tmp_path / kind
        settings = [f"objective.kind={kind}", f"model.vision.from={tower}", "train.steps=3", "objective.head_depth=0"]
        lines = train(encoder_recipe, run, *settings)
        plan = json.loads((run / "plan" / "plan.json").read_text())
        assert plan["tokens_per_image"] == 16
        assert lines[-1]["tokens"] >= 3 * 8 * 16
        assert pixel_statistics(str(resolve_model(run))) == ([0.5] * 3, [0.25] * 3)


def test_captions_are_padded_to_few_lengths_which_changes_no_feature(
    encoder_recipe: Path, data: Path, tmp_path: Path
) -> None:
    train(encoder_recipe, tmp_path / "run", "train.steps=3")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    model = CLIPModel.from_pretrained(tmp_path / "run" / "model")
    collate, lengths = PairCollate(tokenizer, 12, 4), set()
    for words in range(1, 14):
        caption = " ".join(["red"] * words)
        sample = PictureSample(np.zeros((3, 16, 16), np.uint8), caption, 0, 0.5, [])
        padded = collate([sample])["input_ids"]
        plain = tokenizer([caption], truncation=True, max_length=12, return_tensors="pt")["input_ids"]
        assert torch.equal(padded[:, : plain.shape[1]], plain)
        features = [model.get_text_features(input_ids=ids).pooler_output for ids in (padded, plain)]
        torch.testing.assert_close(*features)
        lengths.add(padded.shape[1])
    assert lengths == {8, 12}


def test_special_tokens_in_a_caption_are_text(encoder_recipe: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(encoder_recipe, run, "train.steps=3")
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    sample = PictureSample(np.zeros((3, 16, 16), np.uint8), "a <eos> in <image> the text of it", 0, 0.5, [])
    ids = PairCollate(tokenizer, 12, 4)([sample])["input_ids"][0].tolist()
    assert len(ids) == 12
    assert ids[0] == tokenizer.bos_token_id
    assert [i for i, token in enumerate(ids) if token == tokenizer.eos_token_id] == [11]
    assert tokenizer.convert_tokens_to_ids("<image>") not in ids
    with pytest.raises(UserError, match="sequence_length 13 is too long for .* at most 12"):
        train(encoder_recipe, tmp_path / "longer", f"model.from={run}", "data.sequence_length=13")
