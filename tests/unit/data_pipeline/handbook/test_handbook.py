"""A handbook's pairs: whole, once each, in its own words, and on one side by rule."""

import re
from collections import Counter
from pathlib import Path

import pytest

from ai_forge.data_pipeline.handbook.agent_folder import read_agent_folder
from ai_forge.data_pipeline.handbook.handbook import Handbook, read_handbook
from ai_forge.errors import InputError

FIXTURE = Path(__file__).parents[3] / "fixtures" / "handbook"
WORD = re.compile(r"\w+")


def words(text: str) -> set[str]:
    return set(WORD.findall(text.lower()))


@pytest.fixture(scope="module")
def handbook() -> Handbook:
    return read_handbook(FIXTURE)


def make(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / ".agent" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


# -- what every pair keeps ------------------------------------------------------------------------------------------


def test_no_section_is_dropped(handbook: Handbook) -> None:
    told: dict[str, str] = {}
    for pair in handbook.pairs:
        told[pair.path] = told.get(pair.path, "") + f"\n{pair.output}\n{pair.input}"
    everything = "\n".join(told.values())
    for file in handbook.folder.files:
        for section in file.sections:
            if file.role == "correction":  # labels and dates go, mistakes and rules stay
                continue
            for line in filter(str.strip, section.text.split("\n")):
                assert line.strip() in told.get(file.path, "") or line.strip() in everything, (file.path, line)


def test_every_mistake_and_rule_of_the_corrections_is_told(handbook: Handbook) -> None:
    found = {
        (pair.input, pair.output.split("\n")[0]) for pair in handbook.pairs if pair.path == "memory/corrections.md"
    }
    assert (
        "Wrote the report with `print`, so the JSON on stdout could not be parsed.",
        "Data goes to stdout, messages to stderr.",
    ) in found
    assert ("Mocked git in the test of the miner.", "Make a real repository in a temporary folder.") in found
    assert ("Deleted a branch that was not merged", "Ask before a branch is deleted") in found
    assert ("`except Exception: pass`", "name the error and raise it") in found
    assert ("guessing a column's type", "Instead of guessing a column's type, read the schema.") in found
    assert ("edit generated files", "Don't edit generated files; change the generator.") in found
    assert ("tests that sleep", "tests that wait for the event.") in found
    assert ("```\nopen(path).read()\n```", "```") in found
    assert ("", "- The build was green all week.") in found  # no correction: told as text
    assert len(found) == 10


def test_every_output_is_made_of_the_words_of_its_file(handbook: Handbook) -> None:
    files = {file.path: file for file in handbook.folder.files}
    for pair in handbook.pairs:
        file = files[pair.path]
        source = words(file.text) | words(file.meta.get("description", "") if pair.kind == "skill" else "")
        assert words(pair.output) <= source, pair


def test_the_lines_of_a_pair_hold_its_output(handbook: Handbook) -> None:
    for pair in handbook.pairs:
        if pair.kind in ("scenario", "step"):
            raw = (handbook.folder.root / pair.path).read_bytes().replace(b"\r\n", b"\n")
            text = raw.decode("cp1252" if pair.path == "rules/cafe.md" else "utf-8")
            shown = "\n".join(text.split("\n")[pair.first_line - 1 : pair.last_line])
            assert words(pair.output) <= words(shown), pair


def test_no_pair_is_there_twice(handbook: Handbook) -> None:
    asked = Counter((pair.instruction.lower(), pair.input.lower()) for pair in handbook.pairs)
    assert asked.most_common(1)[0][1] == 1
    texts = Counter(pair.output for pair in handbook.pairs if pair.kind in ("section", "document"))
    assert texts.most_common(1)[0][1] == 1
    assert handbook.rejected["same_text"] == 1  # the copy of the identity rule


def test_overview_and_sections_do_not_repeat_each_other(handbook: Handbook) -> None:
    for path in {pair.path for pair in handbook.pairs}:
        lines = Counter(
            line.strip()
            for pair in handbook.pairs
            if pair.path == path and pair.kind in ("section", "document")
            for line in pair.output.split("\n")
            if len(line.split()) > 4
        )
        assert all(n == 1 for n in lines.values()), (path, lines.most_common(2))


def test_front_matter_and_comments_are_in_no_output(handbook: Handbook) -> None:
    told = "\n".join(pair.output for pair in handbook.pairs)
    for gone in ("trigger:", "always_on", "globs", "priority", "alwaysApply", "two colons", "Internal: remove"):
        assert gone not in told
    assert "How a version is released" not in told
    assert "More text, which must stay." in told  # between two rules, not front matter


def test_encodings_line_ends_and_mojibake_are_repaired(handbook: Handbook) -> None:
    told = "\n".join(pair.output for pair in handbook.pairs)
    assert "\r" not in told
    assert "Résumés" in told
    assert "naïve question with a joke – explain" in told
    assert "Don’t use “smart” quotes" in told
    assert "accents: André, Zoë." in told
    assert not re.search("Ã|â€", told)
    repaired = Counter(repair for file in handbook.folder.files for repair in file.repairs)
    assert repaired == {"not_utf8": 1, "mojibake": 1, "line_ends": 1}
    assert handbook.folder.skipped == {"other_file": 2, "not_text": 1}


def test_tables_and_code_stay_whole_and_hashes_in_code_are_no_headings(handbook: Handbook) -> None:
    naming = next(pair for pair in handbook.pairs if "Naming" in pair.instruction)
    assert "| Kind | Style | Example |\n| --- | --- | --- |\n| Function |" in naming.output
    comments = next(pair for pair in handbook.pairs if "Comments" in pair.instruction)
    assert comments.output.endswith("```sh\n# this is no heading\nmake check\n```")


def test_a_long_section_is_cut_between_paragraphs(handbook: Handbook) -> None:
    parts = [pair for pair in handbook.pairs if "Migrations" in pair.instruction]
    assert [re.search(r"part \d of \d", pair.instruction)[0] for pair in parts] == ["part 1 of 2", "part 2 of 2"]  # type: ignore[index]
    assert all(pair.output.startswith("Rule ") and pair.output.endswith("changed.") for pair in parts)
    assert parts[0].last_line < parts[1].first_line
    assert len({pair.rule_id for pair in parts}) == 1


# -- situations, steps ----------------------------------------------------------------------------------------------


def test_situations_need_the_rule_and_do_not_name_it(handbook: Handbook) -> None:
    files = {file.path: file for file in handbook.folder.files}
    situations = [pair for pair in handbook.pairs if pair.kind == "scenario"]
    assert len(situations) >= 30
    for pair in situations:
        file = files[pair.path]
        section = max((s for s in file.sections if s.first_line <= pair.first_line), key=lambda s: s.first_line)
        for name in {file.title, *section.headings}:
            assert name.lower() not in pair.instruction.lower(), pair
        limit = re.search(r"\b\d{2,}\b(?= lines)", pair.output)
        assert limit is None or not re.search(rf"\b{limit[0]}\b", pair.instruction)


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        ("A migration drops a column. What do we do?", "When a migration drops a column, ask first."),
        ("I want to swallow exceptions. May I go ahead?", "Do not swallow exceptions: name the error and raise it."),
        ("Here I went for `os.path`. Is there anything to change?", "Use `pathlib` instead of `os.path`."),
        ("What if screenshots did not show the address bar?", "Screenshots should show the address bar."),
        ("Must paths really be built with `pathlib`?", "Paths must be built with `pathlib`."),
        ("This step is done: Run the whole suite.\nWhat is next?", "Raise the version in `pyproject.toml`."),
    ],
)
def test_a_situation_is_made_from_the_rules_own_sentence(handbook: Handbook, asked: str, rule: str) -> None:
    assert {pair.instruction: pair.output for pair in handbook.pairs}[asked] == rule


# -- preferences, probes, sides -------------------------------------------------------------------------------------


def test_corrections_give_the_rule_over_the_mistake(handbook: Handbook) -> None:
    chosen = {pair.rejected: pair.chosen for pair in handbook.preferences}
    assert chosen["Mocked git in the test of the miner."] == "Make a real repository in a temporary folder."
    assert chosen["```\nopen(path).read()\n```"] == '```\npath.read_text(encoding="utf-8")\n```'
    assert len(chosen) == 10
    assert {pair.kind for pair in handbook.preferences} == {"correction"}
    assert {pair.origin.rule_id for pair in handbook.preferences} <= {pair.rule_id for pair in handbook.pairs}


def test_every_checkable_rule_gets_a_probe_that_no_pair_asks(handbook: Handbook) -> None:
    checks = {probe.check.model_dump_json(exclude={"stated"}) for probe in handbook.probes}
    assert checks == {
        '{"kind":"length","limit":300,"unit":"lines","of":"code"}',
        '{"kind":"length","limit":40,"unit":"lines","of":"code"}',
        '{"kind":"length","limit":72,"unit":"characters","of":"text"}',
        '{"kind":"first_step","phrase":"identity audit"}',
        '{"kind":"first_step","phrase":"Run the whole suite"}',
        '{"kind":"section","title":"Verification wall","place":"end"}',
        '{"kind":"phrase","phrase":"Refs","place":"anywhere"}',
    }
    asked = {pair.instruction.lower() for pair in handbook.pairs}
    assert not asked & {probe.prompt.lower() for probe in handbook.probes}
    assert not {probe.rule_id for probe in handbook.probes} & handbook.held_out_rules
    for (
        probe
    ) in handbook.probes:  # the rule's own sentence is no proof of keeping it, except where the number is asked for
        assert probe.passes(probe.rule) == (probe.check.kind != "section" or "Verification wall:" in probe.rule) or (
            probe.check.kind == "first_step"
        )


def test_a_rules_pairs_lie_on_one_side_and_copies_of_a_rule_with_it(handbook: Handbook) -> None:
    half = read_handbook(FIXTURE, hold_out=0.5)
    assert half.held_out_pairs
    assert {p.id for p in half.train_pairs} | {p.id for p in half.held_out_pairs} == {p.id for p in half.pairs}
    assert not {p.rule_id for p in half.train_pairs} & {p.rule_id for p in half.held_out_pairs}
    assert not {p.output for p in half.train_pairs} & {p.output for p in half.held_out_pairs}
    by_output = {pair.output: pair.rule_id for pair in handbook.pairs}
    assert by_output["name the error and raise it"] != ""
    identity = {pair.rule_id for pair in handbook.pairs if "identity audit" in pair.output.lower()}
    assert len(identity - {p.rule_id for p in handbook.pairs if p.path.startswith("workflows")}) == 1
    assert read_handbook(FIXTURE, hold_out=0).held_out_pairs == ()


def test_it_is_the_same_in_every_run_and_another_seed_holds_out_others(handbook: Handbook) -> None:
    again = read_handbook(FIXTURE)
    assert [pair.id for pair in again.pairs] == [pair.id for pair in handbook.pairs]
    assert again.held_out_rules == handbook.held_out_rules
    assert read_handbook(FIXTURE, seed=1).held_out_rules != handbook.held_out_rules


# -- folders --------------------------------------------------------------------------------------------------------


def test_links_large_files_and_folders_of_others_are_not_read(tmp_path: Path) -> None:
    make(tmp_path, {"rules/a.md": "Never lie.", "rules/big.md": "x " * 600_000, "notes.md": "no"})
    (tmp_path / "secret.md").write_text("Outside.")
    (tmp_path / ".agent/rules/link.md").symlink_to(tmp_path / "secret.md")
    (tmp_path / ".agent/workflows").symlink_to(tmp_path)
    folder = read_agent_folder(tmp_path)
    assert [file.path for file in folder.files] == ["rules/a.md"]
    assert folder.skipped == {"link": 2, "too_large": 1, "other_file": 1}


def test_the_folder_itself_may_be_named_and_agents_is_one_too(tmp_path: Path) -> None:
    make(tmp_path, {"rules/a.md": "Never lie."})
    (tmp_path / ".agent").rename(tmp_path / ".agents")
    assert read_agent_folder(tmp_path).root == read_agent_folder(tmp_path / ".agents").root == tmp_path / ".agents"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (None, "has no .agent or .agents folder"),
        ({"rules/a.md": "---\ntitle: x\n---\n"}, "holds no handbook text"),
        ({"readme.md": "x"}, r"holds no handbook text \(left out: other_file 1\)"),
    ],
)
def test_without_a_handbook_it_says_so(tmp_path: Path, files: dict[str, str | bytes] | None, told: str) -> None:
    make(tmp_path, files or {})
    with pytest.raises(InputError, match=told):
        read_handbook(tmp_path)


def test_two_folders_and_a_linked_folder_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "one", {"rules/a.md": "x"})
    (tmp_path / "one" / ".agents").mkdir()
    with pytest.raises(InputError, match=r"has both .agent and .agents\. Next: Name the one"):
        read_handbook(tmp_path / "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / ".agent").symlink_to(tmp_path / "one" / ".agent")
    with pytest.raises(InputError, match="is a link"):
        read_handbook(tmp_path / "two")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe" + "# A\n\nNever lie.\n".encode("utf-16-le"),
        b"\xff\xfe\x00",
        b"---\n" * 2000,
        b"[" * 5000,
        b"> " * 2000 + b"x",
        b"- " * 2000 + b"x",
        ("|" * 3000 + "\n" + "|-" * 3000).encode(),
        b"Never " + b"a" * 50_000,
        b"Mistake: " + b"x -> " * 5000,
        b"Mistake: one\nRule: two\n" * 50,
        b"\x85\xa0 \xc3\x28 Never lie.",
        b"# \n##\n#\n\nKeep at most 300 lines",
    ],
)
def test_odd_files_stop_nothing(tmp_path: Path, content: bytes) -> None:
    make(tmp_path, {"rules/a.md": content, "memory/corrections.md": content, "rules/b.md": "Never lie to a user."})
    handbook = read_handbook(tmp_path)
    assert any(pair.output == "Never lie to a user." for pair in handbook.pairs)
