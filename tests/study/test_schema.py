"""Studies: what a file may say, and what is refused in one sentence."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mm1.confidence import p_text
from mm1.errors import UserError
from mm1.files import write_text
from mm1.model.factory import swiglu_size
from mm1.recipe import load_recipe
from mm1.study.claim import Claim
from mm1.study.claims import verdicts
from mm1.study.lessons import lesson_studies, write_lessons
from mm1.study.plan import DONE, TRAINED, identity, plan_runs, recipes_of, scores_folder
from mm1.study.prepare import stages
from mm1.study.run_table import lessons_table, minutes_left
from mm1.study.schema import load_study, packaged_studies
from mm1.study.store import measured_claims, read_store
from mm1.study.units import replicated
from tests.study.builders import study_of

CONTENT: dict[str, Any] = {
    "name": "a-study",
    "question": "Is it so?",
    "base": "demo",
    "axes": {"size": {"small": {"train.steps": 100}, "large": {"train.steps": 200}}},
}
LARGER = {"claim": "It is.", "better": {"size": "large"}, "worse": {"size": "small"}}
FOLLOWS = {"claim": "Scores follow the loss.", "follows": "loss"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axis": {}}, "did you mean 'axes'"),
        ({"seeds": [0], "claims": [LARGER]}, r"seeds: \[0\] are too few to test claims"),
        (
            {"claims": [LARGER | {"better": {"size": "huge"}}]},
            "axis size has no value 'huge': name one of small, large",
        ),
        ({"claims": [LARGER | {"better": {"width": "large"}}]}, "there is no axis 'width': name one of size"),
        ({"claims": [{"claim": "It is."}]}, "`better` and `worse`, or `alike` and `within`"),
        (
            {"claims": [{"claim": "Same.", "alike": [{"size": "small"}, {"size": "large"}]}]},
            "`within`, the largest difference",
        ),
        ({"claims": [LARGER | {"follows": "loss"}]}, "`alike` and `within`, or `follows`: give one of the three"),
        ({"claims": [FOLLOWS | {"metric": "loss"}]}, "`follows` needs scores"),
        ({"claims": [FOLLOWS | {"minimum": 1}]}, "a `minimum` below 1, which is a correlation"),
        ({"claims": [FOLLOWS]}, "claim 1: `follows` ranks the arms, so the study needs 5 or more"),
        ({"variants": {"one": {}}}, "`axes` or `variants`: give exactly one"),
        ({"looks": [5, 3]}, r"looks: \[5, 3\] must rise and end with the number of seeds, 3"),
        ({"claims": [LARGER | {"registered": "before"}]}, "`registered` .* and `written` .* go together"),
        ({"claims": [LARGER | {"unit": "moon"}]}, "unit"),
        ({"seeds": [1, 1]}, "contain a number twice"),
        (
            {"first": ["rm -r x"]},
            "first: 'rm -r x' can't prepare a study: name a command that begins with one of data, demo",
        ),
        ({"figure": {"x": "width"}}, "there is no axis 'width'"),
        ({"claims": [LARGER | {"metric": "loss", "shots": [4]}]}, "the training loss has no tasks and no shots"),
        ({"figure": {"x": "size", "lines": "shots", "metric": "loss"}}, "the training loss has no tasks and no shots"),
        ({"claims": [LARGER | {"metric": "cost"}]}, "metric"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(CONTENT | changes, sort_keys=False))
    with pytest.raises(UserError, match=message) as error:
        load_study(str(file))
    assert "\n" not in str(error.value)


def test_an_axis_that_names_no_key_of_the_recipe_is_named(tmp_path: Path) -> None:
    study = study_of(axes={"size": {"small": {"model.connector.tokens": 4}}})
    with pytest.raises(UserError, match=r"arm size=small: demo: unknown key 'model\.connector\.tokens'.*num_tokens"):
        plan_runs(study, tmp_path)


SIZES = {"small": {"train.steps": 100}, "large": {"train.steps": 200}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"axes": {"size": {"small": {"train.steps": 100}, "large": {"train.steps": 100}}}},
            "study a-study: the arms size=small and size=large have the same recipe",
        ),
        (  # the second axis overwrites the first one's key
            {"axes": {"size": SIZES, "length": {"a": {"train.steps": 300}, "b": {"train.steps": 400}}}},
            "the arms size=small, length=a and size=large, length=a have the same recipe",
        ),
        ({"axes": {"size": {"small": {"seed": 1}, "large": {"seed": 2}}}}, "have the same recipe"),
        ({"claims": [LARGER | {"tasks": ["easy-vqa", "pagse"]}]}, r"claim 1: .* no task 'pagse' .* mean pages"),
        ({"claims": [LARGER | {"shots": [4, 5]}]}, r"claim 1: its runs are not scored at 5 shots .*from 0, 4, 8"),
        ({"claims": [LARGER | {"shots": [4], "worse_shots": [3]}]}, "claim 1: its runs are not scored at 3 shots"),
        ({"figure": {"x": "size", "tasks": ["page"]}}, "study a-study, figure: its runs have no task 'page'"),
        ({"figure": {"x": "size", "shots": [1]}}, "study a-study, figure: its runs are not scored at 1 shots"),
    ],
)
def test_what_runs_could_not_show_is_said_before_they_are_made(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan_runs(study_of(**changes), tmp_path)


def test_an_unknown_study_is_named() -> None:
    with pytest.raises(UserError, match="study 'maks' is unknown.*laptop/document-mask"):
        load_study("maks")


@pytest.mark.parametrize("name", packaged_studies())
def test_every_packaged_study_can_be_planned(name: str, tmp_path: Path) -> None:
    study = load_study(name)
    runs = plan_runs(study, tmp_path)
    assert len(runs) == len(study.arms()) * len(study.seeds)
    assert len({run.scores for run in runs}) == len(runs)
    assert study.name in (name.replace("/", "-"), name.removeprefix("laptop/"))
    assert study.claims


def test_shots_of_mixed_resolution_are_asked_of_the_models_of_the_study_of_resolution(tmp_path: Path) -> None:
    trained = {run.directory for run in plan_runs(load_study("laptop/resolution"), tmp_path)}
    assert {run.directory for run in plan_runs(load_study("laptop/mixed-resolution"), tmp_path)} <= trained


@pytest.mark.parametrize(
    "arms",
    [
        {
            "moe": {"variant": "dense"},
            "document-mask": {"attention": "inside"},
            "text-share": {"text": "10"},
        },
        {"data-mix": {"captions": "50"}, "text-share": {"text": "0"}},
        {
            "connector": {"kind": "average", "tokens": "16", "pixels": "64"},
            "encoder": {"variant": "64 pixels"},
        },
        {
            "connector": {"kind": "average", "tokens": "16", "pixels": "32"},
            "encoder": {"variant": "32 pixels"},
        },
    ],
)
def test_studies_of_pre_training_share_their_base(arms: dict[str, dict[str, str]], tmp_path: Path) -> None:
    bases = [
        {
            run.directory
            for run in plan_runs(load_study(f"laptop/{name}"), tmp_path)
            if dict(run.arm) == arm and run.seed < 3
        }
        for name, arm in arms.items()
    ]
    assert all(base == bases[0] and len(base) == 3 for base in bases)


def test_time_left_is_told_by_runs_that_are_done_else_by_the_file(tmp_path: Path) -> None:
    study = study_of(minutes=3)
    runs = plan_runs(study, tmp_path)
    assert minutes_left(study_of(), runs, 1) is None
    assert minutes_left(study, runs, 1) == minutes_left(study, runs, 2) == 3 * len(runs)  # two share the cores
    runs[0].scores.mkdir(parents=True)
    write_text(runs[0].scores / DONE, json.dumps({"seconds": 240}))
    assert minutes_left(study, plan_runs(study, tmp_path), 2) == 4 * (len(runs) - 1) / 2
    write_text(runs[0].directory / TRAINED, json.dumps({"seconds": 600}))
    model = runs[1].directory / "model"
    model.mkdir(parents=True)
    (model / "config.json").touch()  # trained, so there is only scoring to come
    assert minutes_left(study, plan_runs(study, tmp_path), 1) == 4 * (len(runs) - 1) + 10 * (len(runs) - 2)


def test_runs_are_the_same_if_recipe_and_version_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = plan_runs(study_of(), tmp_path), plan_runs(study_of(name="another", question="Other?"), tmp_path)
    assert [run.directory for run in one] == [run.directory for run in other]
    assert len({run.directory for run in one}) == 6
    scored = plan_runs(study_of(set={"evaluate.limit": 7}), tmp_path)
    assert [run.directory for run in scored] == [run.directory for run in one]  # only to be scored anew
    monkeypatch.setattr("mm1.study.version.RESULTS_VERSION", 3)
    assert identity(one[0].recipe) != one[0].directory.name


def test_keys_that_came_after_the_first_results_name_a_run_only_where_they_are_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named: list[dict[str, Any]] = []
    monkeypatch.setattr("mm1.study.plan._hash", lambda content: named.append(content[0]))
    for limit, settings in (("", []), (", limit: 9", ["train.lora={rank: 4}"])):
        source = f"data.mixture.text.sources=[{{corpus: notes/train, build: {{format: text{limit}}}}}]"
        identity(load_recipe("demo", [source, *settings]))
    plain, other = ({**c["train"], **c["data"]["mixture"]["text"]["sources"][0]["build"]} for c in named)
    assert not {"lora", "limit", "fetch"} & plain.keys()
    assert "size" not in named[0]["model"]["language_model"]
    assert other["limit"] == 9
    assert other["lora"]["rank"] == 4


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 4))
def test_a_grid_has_every_combination_once(sizes: list[int], seeds: int) -> None:
    axes = {f"axis{i}": {str(j): {"train.steps": 100 + j} for j in range(size)} for i, size in enumerate(sizes)}
    study = study_of(axes=axes, seeds=list(range(seeds)))
    arms = list(study.arms())
    assert len(arms) == len(set(arms)) == math.prod(sizes)
    assert all([axis for axis, _ in arm] == list(axes) for arm in arms)


def test_runs_that_studies_share_are_to_make_once(tmp_path: Path) -> None:
    one, other = study_of(minutes=3), study_of(minutes=3, name="another", seeds=[0, 1])
    table = lessons_table([(study, plan_runs(study, tmp_path)) for study in (one, other)], 1)
    assert [list(column.cells) for column in table.columns][2:] == [["6", "0"], ["18", "0"]]
    assert table.columns[3].footer == "18"
    untimed = study_of(name="untimed", set={"train.batch_size": 4})
    table = lessons_table([(study, plan_runs(study, tmp_path)) for study in (one, untimed)], 1)
    assert [*table.columns[3].cells, table.columns[3].footer] == ["18", "unknown", "unknown"]


@pytest.mark.parametrize(
    ("arms", "more", "message"),
    [
        (
            {"small": {"model.vision.from": "runs/a"}, "large": {"model.vision.from": "runs/b"}},
            {},
            r"claim 1: its arms start from different encoders .*, so its unit is 'encoder' and not 'run'",
        ),
        (
            {"small": {"model.vision.from": "runs/a-{seed}"}, "large": {"model.vision.from": "runs/b"}},
            {"unit": "encoder"},
            r"its unit is 'encoder', but the seeds of arm size=large share model.vision.from runs/b: .* \{seed\}",
        ),
        ({"small": {"model.from": "runs/a"}, "large": {"model.from": "runs/b"}}, {}, "its unit is 'pre-training'"),
        ({"small": {"model.from": "runs/a"}, "large": {"model.from": "runs/a"}}, {}, "its unit is 'base model'"),
        ({"small": {}, "large": {}}, {"unit": "base model"}, "so its unit is 'run' and not 'base model'"),
    ],
)
def test_a_test_over_the_wrong_unit_is_refused(
    tmp_path: Path, arms: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    base = "sft-demo" if "model.from" in arms["small"] else "demo"
    study = study_of(base=base, axes={"size": arms}, claims=[LARGER | more])
    with pytest.raises(UserError, match=message):
        plan_runs(study, tmp_path)


def test_a_claim_on_a_correlation_needs_what_all_arms_need(tmp_path: Path) -> None:
    arms = {str(number): {"model.vision.from": f"runs/{number // 2}"} for number in range(5)}
    study = study_of(axes={"size": arms}, claims=[FOLLOWS])
    with pytest.raises(UserError, match="its arms start from different encoders .*, so its unit is 'encoder'"):
        plan_runs(study, tmp_path)
    study = study_of(axes={"size": arms}, claims=[FOLLOWS | {"unit": "encoder"}])
    with pytest.raises(UserError, match=r"the seeds of arm size=0 share model.vision.from runs/0"):
        plan_runs(study, tmp_path)


def test_each_seed_has_an_encoder_of_its_own(tmp_path: Path) -> None:
    arms = {"small": {"model.vision.from": "runs/a-{seed}"}, "large": {"model.vision.from": "runs/b-{seed}"}}
    first = ["data build scenes", "encoder clip-demo --to runs/a-{seed} --set seed={seed}"]
    study = study_of(axes={"size": arms}, claims=[LARGER | {"unit": "encoder"}], first=first, seeds=[0, 1])
    runs = plan_runs(study, tmp_path)
    starts = [run.recipe.model.vision.from_ for run in runs]
    assert starts == ["runs/a-0", "runs/b-0", "runs/a-1", "runs/b-1"]
    assert replicated(study, recipes_of(runs)) == ("run", "encoder")
    of_a_seed = [[f"encoder clip-demo --to runs/a-{n} --set seed={n}"] for n in (0, 1)]
    assert list(stages(study)) == [[["data build scenes"]], of_a_seed]


def test_scores_are_found_where_they_were_before_right_answers_could_be_asked_for(tmp_path: Path) -> None:
    plain, asked = (load_recipe("demo", [f"evaluate.right_answers={value}"]) for value in ("false", "true"))
    assert scores_folder(tmp_path, plain).name == "615567769083ba85"
    assert scores_folder(tmp_path, asked) != scores_folder(tmp_path, plain)


HISTORY = Path(__file__).parents[2]


@pytest.mark.parametrize("name", [name for name in packaged_studies() if name.startswith("laptop/")])
def test_claims_were_written_when_they_say(name: str) -> None:
    """The commit that a claim names has the claim's question, and the date is the commit's."""
    for claim in load_study(name).claims:
        assert claim.registered is not None
        assert claim.written is not None
        commit = claim.written.commit
        if commit is None:
            continue
        show = ["git", "-C", str(HISTORY), "show", "-s", "--format=%as", commit]
        shown = subprocess.run(show, capture_output=True, text=True, check=False)
        if shown.returncode != 0:
            pytest.skip("the repository's history is not here")
        assert shown.stdout.strip() == str(claim.written.date)
        file = f"src/mm1/study/studies/{name}.yaml"
        content = subprocess.run(
            ["git", "-C", str(HISTORY), "show", f"{commit}:{file}"], capture_output=True, text=True, check=True
        )
        keys = {"claim", "kind", "unit", "registered", "written"}
        written = [{k: v for k, v in c.items() if k not in keys} for c in yaml.safe_load(content.stdout)["claims"]]
        assert claim.question() in [Claim.model_validate(c | {"claim": ""}).question() for c in written]


def test_no_two_packaged_studies_write_the_same_page() -> None:
    names = [load_study(name).name for name in packaged_studies()]
    assert len(set(names)) == len(names)


def test_a_world_without_studies_is_refused() -> None:
    with pytest.raises(UserError, match=r"no packaged studies 'moon/...': name one of hands, laptop, paper"):
        lesson_studies("moon")


@pytest.mark.parametrize(
    "page", sorted((HISTORY / "docs" / "results").glob("lessons-*.md")), ids=lambda page: page.stem
)
def test_a_committed_scoreboard_is_that_of_the_committed_results(page: Path, tmp_path: Path) -> None:
    for file in page.parent.glob("*.json"):
        shutil.copy(file, tmp_path)
    world = page.stem.removeprefix("lessons-")
    assert write_lessons(lesson_studies(world), tmp_path, world).read_text() == page.read_text()


@pytest.mark.parametrize(
    "name", [name for name in packaged_studies() if (HISTORY / f"docs/results/{load_study(name).name}.json").is_file()]
)
def test_a_committed_page_judges_as_the_committed_results_do(name: str) -> None:
    study = load_study(name)
    file = HISTORY / "docs" / "results" / f"{study.name}.json"
    page = file.with_suffix(".md").read_text()
    for finding in verdicts([each for each in measured_claims(study, read_store(file)) if each]):
        (line,) = [line for line in page.splitlines() if f"**: {finding.claim.claim} (" in line]
        assert line.startswith(f"- **{finding.verdict}**")
        assert ("corrected p" in line) == (finding.p_value is not None)
        assert finding.p_value is None or f"corrected p {p_text(finding.p_value)};" in line
        for effect in (*finding.effects, *finding.measured.beside):
            low, high = map(effect.text, effect.interval)
            assert f"{effect.text(effect.mean)} " in page
            assert f"{low} to {high}" in page


@pytest.mark.parametrize(("name", "sparse"), [("laptop/moe", "8 experts"), ("hands/experts", "8 experts")])
def test_a_sparse_arm_has_the_active_parameters_of_the_dense_one(name: str, sparse: str, tmp_path: Path) -> None:
    runs = {dict(run.arm)["variant"]: run.recipe.model.language_model for run in plan_runs(load_study(name), tmp_path)}
    dense = runs["dense"].intermediate_size or swiglu_size(runs["dense"].hidden_size)
    assert (runs[sparse].intermediate_size or 0) * runs[sparse].experts_per_token == dense
    assert runs[sparse].hidden_size == runs["dense"].hidden_size
