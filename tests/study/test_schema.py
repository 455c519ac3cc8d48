"""Studies: what a file may say, and what is refused in one sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mm1.errors import UserError
from mm1.files import write_text
from mm1.study.plan import DONE, TRAINED, identity, plan_runs
from mm1.study.run_table import lessons_table, minutes_left
from mm1.study.schema import load_study, packaged_studies
from tests.study.builders import study_of

CONTENT: dict[str, Any] = {
    "name": "a-study",
    "question": "Is it so?",
    "base": "demo",
    "axes": {"size": {"small": {"train.steps": 100}, "large": {"train.steps": 200}}},
}
LARGER = {"claim": "It is.", "better": {"size": "large"}, "worse": {"size": "small"}}


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
        ({"variants": {"one": {}}}, "`axes` or `variants`: give exactly one"),
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


def test_an_unknown_study_is_named() -> None:
    with pytest.raises(UserError, match="study 'maks' is unknown.*laptop/document-mask"):
        load_study("maks")


@pytest.mark.parametrize("name", packaged_studies())
def test_every_packaged_study_can_be_planned(name: str, tmp_path: Path) -> None:
    study = load_study(name)
    runs = plan_runs(study, tmp_path)
    assert len(runs) == len(study.arms()) * len(study.seeds)
    assert len({run.scores for run in runs}) == len(runs)
    assert name.endswith("/" + study.name)
    assert study.claims


def test_shots_of_mixed_resolution_are_asked_of_the_models_of_the_study_of_resolution(tmp_path: Path) -> None:
    trained = {run.directory for run in plan_runs(load_study("laptop/resolution"), tmp_path)}
    assert {run.directory for run in plan_runs(load_study("laptop/mixed-resolution"), tmp_path)} <= trained


@pytest.mark.parametrize(
    "arms",
    [
        {
            "moe": {"variant": "dense"},
            "encoder": {"variant": "64 pixels"},
            "connector": {"kind": "average", "tokens": "16", "pixels": "64"},
            "document-mask": {"attention": "inside"},
            "text-share": {"text": "10"},
        },
        {"data-mix": {"captions": "50"}, "text-share": {"text": "0"}},
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
    monkeypatch.setattr("mm1.study.version.RESULTS_VERSION", 2)
    assert identity(one[0].recipe) != one[0].directory.name


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
