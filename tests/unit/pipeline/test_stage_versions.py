"""A stage's version cannot be forgotten, and a change in one room re-does only what depends on it."""

import doctest
import json
from collections.abc import Mapping
from typing import Any

import pytest

import renew_stage_versions
from ai_forge.code_hash import files_behind
from ai_forge.pipeline.recipes import RECIPES
from renew_stage_versions import COMMAND, PACKAGE, PATH, current, files_of, hash_of_code, stages, version_file


def complaints(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One for each stage whose code is not what was recorded with its version."""
    found = []
    for name, stage in stages().items():
        row, before = now["stages"][name], recorded["stages"].get(name)
        if row == before:
            continue
        held = [path.relative_to(PACKAGE).as_posix() for path in files_of(stage)]
        changed = [path for path in held if now["files"][path] != recorded["files"].get(path)]
        if before is not None and before["version"] == row["version"]:
            advice = f"Does it make something else of the same input now? Then raise its version, {row['version']}, in"
            advice = f"{advice} {version_file(stage)}. In either case:"
        else:
            advice = "Its version is another one:"
        what = ", ".join(changed) or "what it imports"
        found.append(f"{name} is made of other code ({what}). {advice} {COMMAND}")
    gone = sorted(set(recorded["stages"]) - set(now["stages"]))
    return found + [f"{name} is no longer a stage: {COMMAND}" for name in gone]


def test_a_stage_whose_code_changed_has_its_version_thought_about() -> None:
    told = complaints(json.loads(PATH.read_text(encoding="utf-8")), current())
    assert not told, "\n".join(told)


def test_a_change_is_told_with_stage_file_version_and_command() -> None:
    now = current()
    before = json.loads(json.dumps(now))
    before["files"]["model_files/merge.py"] = "0" * 16
    before["stages"]["repository/merge"]["hash"] = "0" * 16
    before["stages"]["repository/export"]["version"] -= 1
    before["stages"]["handbook/gone"] = before["stages"]["repository/merge"]
    merge, export, gone = complaints(before, now)
    assert merge.startswith(
        "repository/merge is made of other code (model_files/merge.py). Does it make something else"
    )
    assert (
        f"raise its version, {now['stages']['repository/merge']['version']}, in ai_forge/pipeline/stages/merge.py"
        in merge
    )
    assert "Its version is another one" in export
    assert "handbook/gone is no longer a stage" in gone
    assert all(text.endswith("python tests/renew_stage_versions.py") for text in (merge, export, gone))


def test_comments_docstrings_and_layout_are_no_code() -> None:
    plain = "class A:\n    x: int\n    def f(self):\n        return 1\n"
    dressed = (
        "'''A module.'''\nclass A:\n    '''A.'''\n    x: int  # n\n    '''x.'''\n\n    def f(self):\n        '''f.'''\n"
        "        # one\n        return (\n            1\n        )\n"
    )
    assert hash_of_code(plain) == hash_of_code(dressed)
    assert hash_of_code(plain) != hash_of_code(plain.replace("return 1", "return 2"))
    assert doctest.testmod(renew_stage_versions).failed == 0


# -- what depends on what -------------------------------------------------------------------------------------------

HANDBOOK_WORDING = "data_pipeline/handbook/wording.py"
QUESTION_WORDING = "data_pipeline/examples/question_templates.py"
LANGUAGE_QUERY = "data_pipeline/languages/python.scm"
REPORT_TEMPLATE = "judge/templates/report.html.j2"


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("repository/mine", {LANGUAGE_QUERY}),
        ("repository/dataset", {LANGUAGE_QUERY, QUESTION_WORDING}),
        ("repository/train", set()),
        ("repository/merge", set()),
        ("repository/export", set()),
        ("repository/report", {REPORT_TEMPLATE}),
        ("handbook/train", set()),
    ],
)
def test_a_stage_is_made_of_what_it_depends_on_and_no_more(stage: str, expected: set[str]) -> None:
    held = {path.relative_to(PACKAGE).as_posix() for path in files_behind(*stages()[stage].made_of)}
    asked = {HANDBOOK_WORDING, QUESTION_WORDING, LANGUAGE_QUERY, REPORT_TEMPLATE}
    assert all((PACKAGE / path).is_file() for path in asked)
    assert held & asked == expected


def test_only_what_is_keyed_by_its_code_is_made_again_when_code_changes() -> None:
    """The miner and the report are, so that their caches follow an edit; all others follow their version."""
    for recipe in RECIPES.values():
        for stage in recipe.stages:
            assert stage.made_of, f"{recipe.name}/{stage.name} names nothing that it is made of"
            assert files_behind(*stage.made_of)
