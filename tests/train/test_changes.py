"""What may change on an existing run: it goes on, comes to the same losses, and says what was changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mm1.encoder.pretrain import pretrain_encoder
from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration
from mm1.recipe import EncoderRecipe, RunRecipe, load_recipe
from mm1.recipe.schema import Section
from mm1.train.changes import CHANGEABLE_KEYS, MICRO_BATCH, fixed_keys
from mm1.train.checkpoint import checkpoints
from mm1.train.loop import Trainer
from mm1.train.prepare import make_plan
from mm1.train.pretrain import pretrain
from mm1.train.run_directory import locked_run
from tests.conftest import breaking_at
from tests.encoder.conftest import TINY
from tests.train.forked import end, start, start_ranks

STEPS = 12
SPARSE = ["model.language_model.num_layers=2", "model.language_model.num_experts=2"]


def command(recipe_file: Path, run: Path, *settings: str) -> list[object]:
    return ["pretrain", recipe_file, "--to", run, *(part for setting in settings for part in ("--set", setting))]


def losses(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


def environment(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "environment.json").read_text())
    return content


def train_in_two_processes(
    recipe_file: Path, run: Path, before: list[str], after: list[str], ranks: int = 1
) -> dict[str, Any]:
    """Train to step 5 with some settings and to the end with others; return the run's environment.json."""
    log = run.with_name(f"{run.name}.log")
    stopped = start_ranks(ranks, command(recipe_file, run, *before), log, stop_at_step=4)
    assert end(stopped) == [75] * ranks, Path(f"{log}.0").read_text()
    assert [path.name for path in checkpoints(run / "checkpoints")][-1] == "step-000005"
    assert end(start_ranks(ranks, command(recipe_file, run, *after), log)) == [0] * ranks, Path(f"{log}.0").read_text()
    assert (run / "model" / "config.json").is_file()
    return environment(run)


@pytest.fixture(scope="module")
def whole(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs of the tiny recipe that nothing interrupted, by the number of ranks."""
    folder = tmp_path_factory.mktemp("whole")
    return {1: folder / "one", 2: folder / "two"}


@pytest.fixture
def unchanged(data: Path, recipe_file: Path, whole: dict[int, Path]) -> dict[int, Path]:
    for ranks, run in whole.items():
        if not run.exists():
            assert end(start_ranks(ranks, command(recipe_file, run), run.with_name(f"{run.name}.log"))) == [0] * ranks
    return whole


@pytest.mark.parametrize(
    "changes",
    [
        ["train.micro_batch_size=1"],
        ["train.micro_batch_size=2", "data.workers=1", "train.activation_checkpointing=true"],
        ["model.language_model.attention=sdpa_packed", "model.vision.attention=[eager, sdpa]"],
        ["train.checkpoint_every=3", "train.keep_checkpoints=1", "train.keep_every=6", "train.max_bad_steps=2"],
        ["name=other", "train.device=cpu", "train.log_every=3", "evaluate.limit=7", "evaluate.tasks=[pope]"],
    ],
    ids=lambda changes: changes[0],
)
def test_it_goes_on_with_other_keys_to_the_same_losses(
    changes: list[str], unchanged: dict[int, Path], recipe_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    recorded = train_in_two_processes(recipe_file, run, [], changes)
    found, expected = losses(run), losses(unchanged[1])
    every = 3 if "train.log_every=3" in changes else 1
    assert sorted(found) == [step for step in expected if step <= 5 or step % every == 0]
    if every == 1:
        assert found == pytest.approx(expected, rel=1e-5)
    ((step, keys),) = [entry.values() for entry in recorded["changes"]]
    assert step == 5
    assert set(keys) == {setting.split("=")[0] for setting in changes}
    newest = yaml.safe_load((run / "recipe.yaml").read_text())
    assert newest == yaml.safe_load(load_recipe(str(recipe_file), changes).to_yaml())


@pytest.mark.parametrize("changes", [["train.micro_batch_size=1"], ["train.replicas=2", "train.micro_batch_size=1"]])
def test_two_ranks_go_on_with_other_keys_to_the_same_losses(
    changes: list[str], unchanged: dict[int, Path], recipe_file: Path, tmp_path: Path
) -> None:
    recorded = train_in_two_processes(recipe_file, tmp_path / "run", [], changes, ranks=2)
    assert losses(tmp_path / "run") == pytest.approx(losses(unchanged[2]), rel=1e-5)
    assert [entry["step"] for entry in recorded["changes"]] == [5]


def test_experts_lie_elsewhere_and_the_losses_are_the_same(data: Path, recipe_file: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert end(start_ranks(2, command(recipe_file, whole, *SPARSE), tmp_path / "log")) == [0, 0]
    changes = ["train.expert_parallel=1", "train.reshard_after_forward=false"]
    recorded = train_in_two_processes(recipe_file, run, SPARSE, [*SPARSE, *changes], ranks=2)
    assert losses(run) == pytest.approx(losses(whole), rel=1e-5)
    ((_, keys),) = [entry.values() for entry in recorded["changes"]]
    assert set(keys) == {change.split("=")[0] for change in changes}


def test_a_micro_batch_that_more_ranks_need_can_be_set(
    unchanged: dict[int, Path], recipe_file: Path, tmp_path: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    assert end([start(command(recipe_file, run, "train.micro_batch_size=4"), log, stop_at_step=4)]) == [75]
    assert end(start_ranks(2, command(recipe_file, run, "train.micro_batch_size=4"), log)) == [2, 2]
    assert end(start_ranks(2, command(recipe_file, run, "train.micro_batch_size=2"), log)) == [0, 0]
    assert losses(run) == pytest.approx(losses(unchanged[1]), rel=2e-4)


def test_every_change_is_recorded_with_its_step(data: Path, recipe_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for stop, settings in ((5, []), (8, ["train.micro_batch_size=2"]), (11, ["train.micro_batch_size=1"])):
        with breaking_at(stop):
            pretrain(load_recipe(str(recipe_file), ["train.checkpoint_every=1", *settings]), run)
    pretrain(load_recipe(str(recipe_file), ["train.checkpoint_every=1"]), run)
    assert environment(run)["changes"] == [
        {"step": 5, "keys": {"train.micro_batch_size": [None, 2]}},
        {"step": 8, "keys": {"train.micro_batch_size": [2, 1]}},
        {"step": 11, "keys": {"train.micro_batch_size": [1, None]}},
    ]


def test_what_changes_before_the_first_checkpoint_is_no_change(data: Path, recipe_file: Path, tmp_path: Path) -> None:
    with breaking_at(2):
        pretrain(load_recipe(str(recipe_file), SPARSE), tmp_path / "run")
    with breaking_at(2):
        pretrain(load_recipe(str(recipe_file), [*SPARSE, "train.micro_batch_size=2"]), tmp_path / "run")
    assert "changes" not in environment(tmp_path / "run")
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["train"]["micro_batch_size"] == 2


@pytest.mark.parametrize(
    ("wrong", "mended"),
    [
        ("model.language_model.from=no/such", "model.language_model.hidden_size=32"),
        ("data.sequence_length=4", "tokenizer.vocab_size=330"),  # fails after a tokenizer was trained
    ],
)
def test_a_start_that_fails_because_of_its_recipe_may_be_mended(
    wrong: str, mended: str, data: Path, recipe_file: Path, tmp_path: Path
) -> None:
    run, key = tmp_path / "run", mended.split("=")[0]
    with pytest.raises(UserError):
        pretrain(load_recipe(str(recipe_file), [wrong]), run)
    with breaking_at(2):
        pretrain(load_recipe(str(recipe_file), [mended]), run)
    for file in (run / "recipe.yaml", run / "tokenizer" / "tokenizer.json"):
        assert file.is_file()
    content = yaml.safe_load((run / "recipe.yaml").read_text())
    for name in key.split("."):
        content = content[name]
    assert str(content) == mended.split("=")[1]
    if key == "tokenizer.vocab_size":
        tokenizer = json.loads((run / "tokenizer" / "tokenizer.json").read_text())
        assert 300 < len(tokenizer["model"]["vocab"]) <= 330


def test_keys_that_came_after_a_run_are_no_change(data: Path, recipe_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with breaking_at(5):
        pretrain(load_recipe(str(recipe_file)), run)
    older = yaml.safe_load((run / "recipe.yaml").read_text())
    del older["evaluate"]["right_answers"], older["train"]["lora"], older["train"]["z_loss"]
    del older["model"]["language_model"]["size"]
    (run / "recipe.yaml").write_text(yaml.safe_dump(older))
    with pytest.raises(UserError, match=r"these keys differ: train\.z_loss \(0\.0 there, 0\.1 now\)"):
        pretrain(load_recipe(str(recipe_file), ["train.z_loss=0.1"]), run)
    pretrain(load_recipe(str(recipe_file)), run)
    assert "changes" not in environment(run)


REFUSED = [
    "seed=1",
    "data.sequence_length=64",
    "data.images_per_sequence=5",
    "data.document_mask=false",
    "data.mixture.text.weight=0.2",
    "data.mixture.text.sources=[{corpus: prose/train, weight: 2.0}]",
    "tokenizer.vocab_size=330",
    "model.language_model.hidden_size=32",
    "model.connector.num_tokens=1",
    "model.resolution.fit=pad",
    "train.steps=13",
    "train.batch_size=8",
    "train.learning_rate=0.1",
    "train.warmup_steps=1",
    "train.dtype=bfloat16",
    "train.optimizer=adafactor",
    "train.freeze=[vision]",
    "train.clip_norm=0.5",
    "train.z_loss=0.1",
]


@pytest.fixture(scope="module")
def broken(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broken") / "run"


@pytest.mark.parametrize("setting", REFUSED)
def test_what_changes_batches_or_results_is_refused_by_name(
    setting: str, broken: Path, data: Path, recipe_file: Path
) -> None:
    """Also beside a key that may change, which then stays as it is."""
    if not broken.exists():
        with breaking_at(5):
            pretrain(load_recipe(str(recipe_file)), broken)
    before = {name: (broken / name).read_bytes() for name in ("recipe.yaml", "environment.json")}
    with pytest.raises(UserError) as refused:
        pretrain(load_recipe(str(recipe_file), [setting, "train.micro_batch_size=2"]), broken)
    key = setting.split("=")[0]
    assert f"these keys differ: {key}" in str(refused.value)
    assert MICRO_BATCH not in str(refused.value)
    assert {name: (broken / name).read_bytes() for name in before} == before


def keys_of(section: type[RunRecipe] | type[Section], prefix: str = "") -> set[str]:
    """Return all keys of a recipe with dots."""
    found = set()
    for name, field in section.model_fields.items():
        key, kind = f"{prefix}{field.alias or name}", field.annotation
        inner = isinstance(kind, type) and issubclass(kind, Section)
        found |= keys_of(kind, f"{key}.") if inner else {key}  # type: ignore[arg-type]
    return found


def test_every_changeable_key_is_one_of_a_recipe() -> None:
    from mm1.recipe import Recipe

    keys = keys_of(Recipe) | keys_of(EncoderRecipe)
    for key in CHANGEABLE_KEYS:
        assert any(known == key or known.startswith(f"{key}.") for known in keys), key


def test_a_run_that_another_process_trains_is_left_alone(data: Path, recipe_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with breaking_at(5):
        pretrain(load_recipe(str(recipe_file)), run)
    before = {name: (run / name).read_bytes() for name in ("recipe.yaml", "environment.json")}
    changed = load_recipe(str(recipe_file), ["train.micro_batch_size=2"])
    with locked_run(run), pytest.raises(UserError, match="another process is training this run"):
        pretrain(changed, run)
    make_plan(changed, run)  # who plans trains nothing
    assert {name: (run / name).read_bytes() for name in before} == before


def test_routers_fix_the_micro_batch(data: Path, recipe_file: Path, tmp_path: Path) -> None:
    """Their losses are means over a micro-batch: another size gives other losses."""
    run = tmp_path / "run"
    with breaking_at(5):
        pretrain(load_recipe(str(recipe_file), SPARSE), run)
    smaller = load_recipe(str(recipe_file), [*SPARSE, "train.micro_batch_size=2"])
    sentence = r"train.micro_batch_size \(None there, 2 now\); .* is fixed because the routers' losses are means"
    with pytest.raises(UserError, match=sentence):
        pretrain(smaller, run)
    content = environment(run)
    del content["fixed_keys"]  # as in a run made before there were any
    (run / "environment.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=sentence):
        pretrain(smaller, run)
    pretrain(load_recipe(str(recipe_file), [*SPARSE, "train.activation_checkpointing=true"]), run)
    pretrain(load_recipe(str(recipe_file), SPARSE), tmp_path / "whole")
    assert losses(run) == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    pretrain(smaller, tmp_path / "smaller")
    assert losses(tmp_path / "smaller") != pytest.approx(losses(tmp_path / "whole"), rel=1e-5)


def test_dropout_fixes_what_its_random_numbers_depend_on(data: Path, recipe_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(load_recipe(str(recipe_file), ["train.steps=3"]), run)
    model = MM1ForConditionalGeneration.from_pretrained(run / "model")
    assert fixed_keys(model) == {}
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            setattr(module, "attention_dropout", 0.1)  # noqa: B010 - a plain number, for mypy a parameter
    assert {MICRO_BATCH, "train.device", "model.language_model.attention"} <= fixed_keys(model).keys()
    assert set(fixed_keys(model)) <= set(CHANGEABLE_KEYS)
    assert MICRO_BATCH in fixed_keys(torch.nn.Sequential(torch.nn.Dropout(0.1)))


@pytest.fixture
def contrastive(tmp_path: Path) -> Path:
    (tmp_path / "clip.yaml").write_text(yaml.safe_dump(TINY))
    return tmp_path / "clip.yaml"


def test_an_encoder_goes_on_with_other_keys(data: Path, contrastive: Path, tmp_path: Path) -> None:
    def recipe(*settings: str) -> EncoderRecipe:
        return load_recipe(str(contrastive), settings, schema=EncoderRecipe)

    pretrain_encoder(recipe(), tmp_path / "whole")
    with breaking_at(5):
        pretrain_encoder(recipe(), tmp_path / "run")
    with pytest.raises(UserError, match=r"train\.batch_size \(8 there, 4 now\)"):
        pretrain_encoder(recipe("train.batch_size=4"), tmp_path / "run")
    with pytest.raises(UserError, match=r"micro_batch_size.*fixed because a contrastive loss compares the whole batch"):
        pretrain_encoder(recipe("train.micro_batch_size=8"), tmp_path / "run")
    changes = ["model.text.attention=eager", "objective.local_loss=false", "train.activation_checkpointing=true"]
    pretrain_encoder(recipe(*changes), tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    assert {entry["step"] for entry in environment(tmp_path / "run")["changes"]} == {4}


def test_auto_stays_the_precision_that_the_run_began_in(
    data: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a machine that would choose another one."""
    auto = load_recipe(str(recipe_file), ["train.dtype=auto"])
    for first, other in ((True, "bfloat16"), (False, "float32")):
        run = tmp_path / other
        monkeypatch.setattr("mm1.train.capabilities.multiplies_bfloat16", lambda device, is_it=first: is_it)
        with breaking_at(5):
            pretrain(auto, run)
        monkeypatch.setattr("mm1.train.capabilities.multiplies_bfloat16", lambda device, is_it=first: not is_it)
        pretrain(auto, run)
        assert environment(run)["dtype"] == other


def short_of_memory(monkeypatch: pytest.MonkeyPatch, step: int, most: int, *, in_optimizer: bool = False) -> None:
    """Let there be no memory for more than so many sequences at a time from a step on."""
    backward, apply = Trainer.backward, Trainer._apply
    sequences: list[int] = []

    def limited(self: Trainer, batch: Any, number: int, count: float) -> Any:
        sequences.append(len(batch["input_ids"]))
        if not in_optimizer and self.state["step"] >= step and sequences[-1] > most:
            raise MemoryError
        return backward(self, batch, number, count)

    def limited_apply(self: Trainer, norm: torch.Tensor, at: int) -> None:
        if in_optimizer and at >= step and sequences[-1] > most:
            self.optimizer.step = failing(self)  # type: ignore[method-assign]
        apply(self, norm, at)

    def failing(self: Trainer) -> Any:
        def fail() -> None:
            with torch.no_grad():  # some weights are changed, then there is no memory for the others
                next(self.model.parameters()).add_(1.0)
            del self.optimizer.step
            raise MemoryError

        return fail

    monkeypatch.setattr(Trainer, "backward", limited)
    monkeypatch.setattr(Trainer, "_apply", limited_apply)


@pytest.mark.parametrize(
    ("in_optimizer", "log_every", "step", "lines"),
    [
        (False, 1, 7, list(range(1, STEPS + 1))),
        (False, 5, 7, [5, 7, 10, 12]),
        (True, 1, 4, list(range(1, STEPS + 1))),  # half applied: only the checkpoint before is sure
    ],
)
def test_out_of_memory_loses_no_step_and_its_advice_can_be_followed(
    in_optimizer: bool,
    log_every: int,
    step: int,
    lines: list[int],
    unchanged: dict[int, Path],
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, log, setting = tmp_path / "run", tmp_path / "log", f"train.log_every={log_every}"
    with monkeypatch.context() as patch:
        short_of_memory(patch, 7, 2, in_optimizer=in_optimizer)
        advice = f"2 fits .*, and with it the run resumes from step {step}: set {MICRO_BATCH}: 2$"
        with pytest.raises(UserError, match=advice):
            pretrain(load_recipe(str(recipe_file), [setting]), run)
    assert checkpoints(run / "checkpoints")[-1].name == f"step-{step:06d}"
    assert end([start(command(recipe_file, run, setting, f"{MICRO_BATCH}=2"), log)]) == [0], log.read_text()
    assert f"resuming from step {step} of {STEPS}" in log.read_text()
    found, expected = losses(run), losses(unchanged[1])
    assert list(found) == lines
    if log_every == 1:
        assert found == pytest.approx(expected, rel=1e-5)


def test_out_of_memory_where_the_micro_batch_is_fixed_says_what_else_to_do(
    data: Path, recipe_file: Path, contrastive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, 3, 2)
    with pytest.raises(UserError) as sparse:
        pretrain(load_recipe(str(recipe_file), SPARSE), tmp_path / "sparse")
    with pytest.raises(UserError) as clip:
        pretrain_encoder(load_recipe(str(contrastive), schema=EncoderRecipe), tmp_path / "clip")
    for sentence, reason in ((str(sparse.value), "routers' losses"), (str(clip.value), "a contrastive loss")):
        assert f"which is fixed because {reason}" in sentence or f"fixed because the {reason}" in sentence
        assert "set train.activation_checkpointing: true (the run then resumes from step 3)" in sentence
        assert f"set {MICRO_BATCH}" not in sentence
