"""Questions beyond one block's structure: the project's own words, callers, and code or text to be written."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from ai_forge.config import SynthesisSettings
from ai_forge.config.data import QuestionFamily
from ai_forge.config.models import load_models
from ai_forge.data_pipeline import (
    MiningResult,
    SourceFile,
    SymbolGraph,
    mine,
    mine_repository,
    read_repository,
    synthesize,
    verify_example,
)
from ai_forge.data_pipeline.examples.families import FAMILIES
from ai_forge.data_pipeline.examples.project_notes import ProjectNotes, read_notes
from ai_forge.data_pipeline.examples.question_templates import ASPECTS, TEMPLATES
from ai_forge.data_pipeline.examples.verification import GAP
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.data_pipeline.source.repository import blob_id
from ai_forge.data_pipeline.text.words import one_line
from ai_forge.prompting.prompt import FENCE, citations_in
from conftest import git

READER = '''"""Reading rows."""


def read_rows(path, limit=100):
    """Read at most `limit` rows of the table at `path`, without the head."""
    rows = open_table(path).rows
    head = rows.pop(0)  # the head is no row of its own
    # an editor may leave blank lines at the end of the file
    while rows and not rows[-1].strip():
        rows.pop()
    check_head(head, path)
    return rows[:limit]


def count_rows(path):
    """Count the rows of the table at `path`, at most a hundred."""
    return len(read_rows(path))


def first_row(path):
    """The first row of the table, which must have one."""
    return read_rows(path, 1)[0]
'''
TEST = """from reader import read_rows


def test_read_rows_without_blank_ones(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("head\\none\\n\\n")
    assert read_rows(path) == ["one"]
"""
GUIDE = "# Guide\n\nRows come in through `read_rows`, which every command shares.\n\nMail a@b.example for help.\n"
MESSAGE = (
    "Reader drops blank lines\n\nEditors add them, so read_rows cannot trust the last line.\n\n"
    "Token: ghp_0123456789abcdefghijABCDEFGHIJ456789\nSigned-off-by: T <t@example.com>\n"
)


def examples(
    mined: MiningResult, notes: ProjectNotes | None = None, **settings: object
) -> dict[str, list[RAFTExample]]:
    chosen = SynthesisSettings.model_validate({"no_oracle_share": 0, "max_per_block": 20, **settings})
    graph = SymbolGraph(mined.documents, mined.imports)
    made = synthesize(mined.blocks, documents=mined.documents, graph=graph, notes=notes, settings=chosen).examples
    assert [problem for example in made for problem in verify_example(example)] == []
    found: dict[str, list[RAFTExample]] = {}
    for example in made:
        found.setdefault(example.family, []).append(example)
    return found


@pytest.fixture
def repository(make_repository: Callable[[dict[str, str]], Path]) -> Path:
    root = make_repository({"other.py": "X = 1\n"})
    for name, text in (("reader.py", READER), ("tests/test_reader.py", TEST), ("docs/guide.md", GUIDE)):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", MESSAGE)
    return root


def made_from(root: Path, **settings: object) -> dict[str, list[RAFTExample]]:
    repository = read_repository(root)
    mined = mine_repository(repository)
    return examples(mined, read_notes(repository, mined.documents), **settings)


def test_why_is_answered_by_the_commit_that_wrote_the_lines(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")[:12]
    found = [e for e in made_from(repository)["why"] if "commit that wrote" in e.final_answer]
    about = next(e for e in found if "`read_rows`" in e.question)
    assert about.final_answer == (
        'The commit that wrote most of `read_rows` says: "Editors add them, so read_rows cannot trust the last line."'
    )
    assert f"commit:{commit}" in citations_in(about.target)
    document = next(d for d in about.oracle_documents if d.citation == f"commit:{commit}")
    assert (document.path, document.first_line, document.commit) == (None, None, git(repository, "rev-parse", "HEAD"))
    assert "It wrote 7 of the 7 lines of code of `read_rows` in `reader.py`." in document.text
    assert "Signed-off-by" not in document.text
    assert "ghp_0123456789" not in document.text


def test_a_changed_file_has_no_commit_and_a_folder_without_git_none_at_all(repository: Path, tmp_path: Path) -> None:
    (repository / "reader.py").write_text(f"# new\n{READER}", encoding="utf-8")
    mined = mine_repository(read_repository(repository))
    said = read_notes(read_repository(repository), mined.documents).said
    path_of = {block.id: block.path for block in mined.documents}
    assert {path_of[one.block_id] for one in said if one.kind == "commit"} == {"tests/test_reader.py"}
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "reader.py").write_text(READER, encoding="utf-8")
    mined = mine_repository(read_repository(plain))
    assert read_notes(read_repository(plain), mined.documents).said == ()


def test_a_comment_tells_why_its_line_is_there(repository: Path) -> None:
    answers = {e.final_answer for e in made_from(repository)["why"]}
    assert 'At `head = rows.pop(0)` the comment in `read_rows` says: "the head is no row of its own"' in answers


def test_a_section_that_names_a_block_is_an_oracle_beside_it(repository: Path) -> None:
    (example,) = made_from(repository)["fits_together"]
    assert example.final_answer == (
        '`docs/guide.md` mentions `read_rows` and says: "Rows come in through `read_rows`, which every command shares."'
    )
    assert [d.citation for d in example.oracle_documents] == ["reader.py:4-12", "docs/guide.md:3-5"]
    assert set(citations_in(example.target)) == {"reader.py:4-12", "docs/guide.md:3-5"}
    commit = git(repository, "rev-parse", "HEAD")
    for document, span in zip(example.oracle_documents, [(4, 12), (3, 5)], strict=True):
        blob = git(repository, "rev-parse", f"HEAD:{document.path}")
        assert (document.first_line, document.last_line, document.commit, document.blob) == (*span, commit, blob)


def test_callers_and_what_a_change_reaches(repository: Path) -> None:
    found = made_from(repository)
    (callers,) = found["callers"]
    assert callers.final_answer == "In these documents `read_rows` is called by `count_rows` and `first_row`."
    assert {f.value for f in callers.facts} == {"count_rows", "first_row"}
    (impact,) = found["change_impact"]
    assert impact.final_answer == (
        "In these documents `count_rows` and `first_row` call `read_rows`, so look at them when it changes. "
        "The test `test_read_rows_without_blank_ones` runs it."
    )


def test_a_gap_hides_whole_statements_and_its_answer_fits(repository: Path) -> None:
    (example,) = made_from(repository)["fill_in_the_middle"]
    shown = example.oracle_documents[0].text
    missing = FENCE.findall(example.final_answer)[0].rstrip("\n")
    assert shown.count(GAP) == 1
    assert all(one_line(missing) not in one_line(d.text) for d in example.shown_documents)
    assert one_line(shown.replace(GAP, missing)) in one_line(READER)
    assert len(example.oracle_documents) == 2
    wrong = example.model_copy(update={"final_answer": example.final_answer.replace(missing, "while rows and (")})
    assert "the missing lines do not fit into the gap" in verify_example(wrong)


def test_a_docstring_is_asked_for_where_it_is_not_shown(repository: Path) -> None:
    written = {e.subject_path: e for e in made_from(repository)["write_docstring"]}
    assert '"""' not in written["reader.py"].oracle_documents[0].text
    go = "// Put stores a value under its key.\nfunc Put(key string, value int) {\n\tstore(key, value)\n\tflush(key)\n}\n"
    text = f"package a\n\n{go}".encode()
    (example,) = examples(mine([SourceFile("a.go", text, blob_id(text))]))["write_docstring"]
    assert FENCE.findall(example.final_answer) == ["Put stores a value under its key.\n"]
    assert example.oracle_documents[0].text.startswith("func Put(")
    shown = example.model_copy(
        update={"oracle_documents": (example.oracle_documents[0].model_copy(update={"text": go}),)}
    )
    assert "what is asked for is shown" in verify_example(shown)


def test_a_real_test_is_the_answer_and_its_subject_the_oracle(repository: Path) -> None:
    (example,) = made_from(repository)["write_test"]
    assert FENCE.findall(example.final_answer) == [TEST.split("\n\n\n")[1]]
    assert citations_in(example.target) == ["reader.py:4-12"]
    long = example.final_answer.replace("    path =", "    pass\n" * 20 + "    path =")
    assert verify_example(example.model_copy(update={"final_answer": long})) != []


def test_an_answer_that_is_only_a_copy_is_found(repository: Path) -> None:
    example = made_from(repository)["purpose"][0]
    copied = example.model_copy(update={"final_answer": example.oracle_documents[0].text.split("\n")[0], "facts": ()})
    assert "the answer is a copy of what is shown" in verify_example(copied)


def test_a_commit_that_is_not_shown_cannot_be_cited(repository: Path) -> None:
    example = next(e for e in made_from(repository)["why"] if "commit that wrote" in e.final_answer)
    wrong = example.model_copy(update={"reasoning": "See [commit:0123456789ab]."})
    assert "cites commit:0123456789ab, which is no oracle" in verify_example(wrong)


def test_sides_share_no_commit_and_no_section_and_training_names_nothing_held_out(
    make_repository: Callable[[dict[str, str]], Path],
) -> None:
    function = 'def {name}(rows):\n    """Do the thing called {name} to all rows."""\n    return [row.{name} for row in rows]\n'
    names = [f"do_thing_{letter}" for letter in "abcdefgh"]
    guide = "\n".join(f"# {n}\n\nRows are changed by `{n}` before the next one.\n" for n in names)
    both = "# Both\n\nFirst comes `do_thing_a`, and `do_thing_h` is what follows it.\n"
    files = {f"{n}.py": function.format(name=n) for n in names} | {"README.md": f"{guide}\n{both}"}
    repository = read_repository(make_repository(files))
    documents = mine_repository(repository).documents
    words = read_notes(repository, documents)
    side_of_file = {f"{n}.py": side for n, side in zip(names, ["train"] * 5 + ["valid", "test", "test"], strict=True)}
    parts = {side: words.of_side(side, documents, side_of_file) for side in ("train", "valid", "test")}
    cited = {side: {one.document.citation for one in part.said} for side, part in parts.items()}
    assert all(cited.values())
    assert len(set().union(*cited.values())) == sum(map(len, cited.values()))
    assert not [one for one in parts["train"].said if "do_thing_h" in one.document.text]


def test_a_setting_chooses_the_families(repository: Path) -> None:
    assert set(made_from(repository, families=("callers", "why"))) == {"callers", "why"}
    with pytest.raises(ValidationError, match=r"Input should be 'purpose', 'parameters'"):
        SynthesisSettings.model_validate({"families": ["purpos"]})
    assert get_args(QuestionFamily) == tuple(FAMILIES)


def test_the_default_base_asks_for_short_answers_only() -> None:
    registry = load_models()
    asked = SynthesisSettings.model_validate(registry.models[registry.default].synthesis).families
    assert asked == tuple(family for family in tuple(FAMILIES)[:11] if family != "usage")


def test_every_new_kind_of_question_has_four_wordings_and_an_aspect() -> None:
    assert set(TEMPLATES) == set(ASPECTS)
    for kind in ("why_commit", "why_comment", "fits_together", *tuple(FAMILIES)[13:]):
        assert len(set(TEMPLATES[kind])) >= 4, kind
