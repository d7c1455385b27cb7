"""What every generated example must hold, over this project's own code and small cases."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from ai_forge.config import SynthesisSettings
from ai_forge.data_pipeline import (
    MiningResult,
    SourceFile,
    SymbolGraph,
    SynthesisResult,
    mine,
    synthesize,
    verify_example,
)
from ai_forge.data_pipeline.examples.families import FAMILIES
from ai_forge.data_pipeline.examples.verification import code_spans
from ai_forge.data_pipeline.graph.symbols import overlap
from ai_forge.data_pipeline.raft_generator import generate_chain_of_thought, retrieve_oracle_and_distractors
from ai_forge.data_pipeline.schemas import Fact, RAFTExample
from ai_forge.data_pipeline.source.repository import blob_id
from ai_forge.data_pipeline.text.words import approximate_tokens, identifiers
from ai_forge.prompting.prompt import NOT_IN_CONTEXT, citations_in
from conftest import SOURCE


@pytest.fixture(scope="module")
def result(mined: MiningResult) -> SynthesisResult:
    graph = SymbolGraph(mined.documents, mined.imports)
    return synthesize(mined.blocks, documents=mined.documents, graph=graph)


def test_every_example_verifies(result: SynthesisResult) -> None:
    assert len(result.examples) > 400
    assert [problem for e in result.examples for problem in verify_example(e)] == []
    assert len({example.id for example in result.examples}) == len(result.examples)
    assert result.rejected["not_verified"] <= 0.01 * len(result.examples)


def test_all_families_and_difficulties_occur(result: SynthesisResult) -> None:
    families = Counter(example.family for example in result.examples)
    of_history = {"fits_together", "write_test"}  # this repository has neither Markdown nor tests
    assert set(families) == set(FAMILIES) - of_history
    assert max(families.values()) < 0.3 * len(result.examples)
    difficulties = Counter(example.difficulty for example in result.examples)
    assert min(difficulties[d] for d in ("easy", "medium", "hard")) > 0.12 * len(result.examples)
    for example in result.examples:
        n = len(example.distractor_documents)
        several = len(example.oracle_documents) > 1
        assert example.difficulty == ("hard" if n > 2 or several else "medium" if n else "easy")


def test_blocks_with_enough_to_say_get_five_examples(result: SynthesisResult) -> None:
    per_subject = Counter(example.subject_id for example in result.examples)
    assert sum(per_subject.values()) / len(per_subject) >= 5
    assert max(per_subject.values()) <= SynthesisSettings().max_per_block


def test_examples_written_before_documents_had_provenance_are_read(result: SynthesisResult) -> None:
    row = json.loads(result.examples[0].model_dump_json())
    for document in (*row["oracle_documents"], *row["distractor_documents"]):
        for name in ("path", "first_line", "last_line", "commit", "blob"):
            del document[name]
    old = RAFTExample.model_validate(row)
    assert (old.id, old.target) == (result.examples[0].id, result.examples[0].target)
    assert all(document.path is None for document in old.shown_documents)


def test_about_a_tenth_has_no_oracle_and_says_so(result: SynthesisResult) -> None:
    without = [example for example in result.examples if not example.oracle_documents]
    assert 0.05 < len(without) / len(result.examples) < 0.15
    for example in without:
        assert example.final_answer == NOT_IN_CONTEXT
        assert example.facts == ()
        assert example.distractor_documents
        name = identifiers(code_spans(example.reasoning)[0])[-1]
        assert not any(name in identifiers(d.text) for d in example.distractor_documents)


def test_documents_fit_the_budget_and_distractors_do_not_overlap_the_oracle(
    result: SynthesisResult, mined: MiningResult
) -> None:
    blocks = {block.id: block for block in mined.documents}
    for example in result.examples:
        assert (
            sum(approximate_tokens(d.text) for d in example.shown_documents) <= SynthesisSettings().max_context_tokens
        )
        oracles = [blocks.get(d.block_id, blocks[example.subject_id]) for d in example.oracle_documents]
        assert all(d.citation == oracle.citation for d, oracle in zip(example.oracle_documents, oracles, strict=True))
        for distractor in example.distractor_documents:
            assert not any(overlap(blocks[distractor.block_id], oracle) for oracle in oracles)


def test_a_subject_is_named_unambiguously_among_the_shown_documents(
    result: SynthesisResult, mined: MiningResult
) -> None:
    blocks = {block.id: block for block in mined.documents}
    for example in result.examples:
        subject = blocks[example.subject_id]
        for document in example.distractor_documents:
            other = blocks[document.block_id]
            if other.name == subject.name:
                assert other.path != subject.path
                assert f"`{subject.path}`" in example.question


def test_questions_do_not_give_line_numbers_away(result: SynthesisResult) -> None:
    assert not [e.question for e in result.examples if citations_in(e.question) or ":" + "1-" in e.question]


def test_targets_are_short_and_regular(result: SynthesisResult) -> None:
    in_words = [e for e in result.examples if "```" not in e.final_answer]
    sizes = sorted(approximate_tokens(e.target) for e in in_words if e.oracle_documents)
    assert sizes[len(sizes) // 10] >= 25
    assert sizes[len(sizes) * 9 // 10] <= 120  # four callers cost four citations
    assert all(e.target.count("\n") == 1 for e in in_words)


def test_wordings_are_diverse(result: SynthesisResult, mined: MiningResult) -> None:
    purpose = [e.question for e in result.examples if e.family == "purpose"]
    openings = Counter(question.split("`")[0] for question in purpose)
    assert len(openings) >= 4
    assert max(openings.values()) < 0.5 * len(purpose)


def test_wrong_facts_are_never_true(result: SynthesisResult) -> None:
    assert sum(bool(e.wrong_facts) for e in result.examples) > 0.15 * len(result.examples)
    for example in result.examples:
        if example.oracle_documents:
            words = {word for d in example.oracle_documents for word in identifiers(d.text)}
            assert not [f for f in example.wrong_facts if set(identifiers(f.value)) <= words and identifiers(f.value)]


def test_the_same_input_gives_the_same_examples_and_another_seed_others(mined: MiningResult) -> None:
    some = mined.blocks[:30]
    first = synthesize(some, documents=mined.documents).examples
    assert synthesize(tuple(reversed(some)), documents=mined.documents).examples == first
    assert synthesize(some, documents=mined.documents, settings=SynthesisSettings(seed=1)).examples != first


def test_limits_are_kept(mined: MiningResult) -> None:
    settings = SynthesisSettings(max_examples=25, max_per_block=2, no_oracle_share=0, max_context_tokens=300)
    limited = synthesize(mined.blocks, documents=mined.documents, settings=settings)
    assert len(limited.examples) <= 25
    assert max(Counter(e.subject_id for e in limited.examples).values()) <= 2
    assert all(e.oracle_documents for e in limited.examples)
    assert limited.rejected["over_max_examples"] > 0
    assert limited.rejected["oracle_too_long"] > 0


def examples_about(text: str, path: str = "a.py", name: str = "") -> dict[str, RAFTExample]:
    extra = (
        "def unrelated_thing(first, second):\n    '''Join the two parts of the thing with a comma.'''\n"
        "    return first + ',' + second\n"
    )
    files = [SourceFile(p, t.encode(), blob_id(t.encode())) for p, t in ((path, text), ("z_other.py", extra))]
    mined = mine(files)
    subjects = [b for b in mined.blocks if b.path == path and name in ("", b.name)]
    settings = SynthesisSettings(no_oracle_share=0, max_per_block=20)
    graph = SymbolGraph(mined.documents, mined.imports)
    found = synthesize(subjects, documents=mined.documents, settings=settings, graph=graph).examples
    return {example.family: example for example in found}


PARSE = '''def parse_date(text, tz=None):
    """Turn an ISO date into a datetime. Time zones are kept."""
    if not text:
        raise ValueError("empty")
    parts = text.split("-")
    return build(parts, tz)
'''


def test_a_functions_answers_state_what_its_code_says() -> None:
    found = examples_about(PARSE)
    written = found.pop("write_docstring")
    assert written.final_answer.endswith(":\n```\nTurn an ISO date into a datetime. Time zones are kept.\n```")
    assert "ISO" not in written.oracle_documents[0].text
    place = ", look at `parse_date` [a.py:1-6]: `def parse_date(text, tz=None)`."
    assert {family: example.reasoning for family, example in found.items()} == {
        "purpose": f"To see what it is for{place}",
        "parameters": f"To see its parameters{place}",
        "exceptions": f"To see what it raises{place}",
        "dependencies": f"To see what it calls{place}",
        "edge_case": f"To see what happens in this case{place}",
        "extend": f"To see its optional parameters{place}",
        "returns": f"To see what it returns{place}",
    }
    assert {family: example.final_answer for family, example in found.items()} == {
        "purpose": 'The documentation of `parse_date` says: "Turn an ISO date into a datetime."',
        "parameters": "`parse_date` takes the parameters `text` and `tz`.",
        "exceptions": "`parse_date` raises `ValueError`.",
        "dependencies": "`parse_date` calls `text.split` and `build`.",
        "edge_case": "If `not text`, `parse_date` raises `ValueError`.",
        "extend": "`parse_date` can be adapted through its optional parameter `tz`.",
        "returns": "`parse_date` returns `build(parts, tz)`.",
    }
    assert found["parameters"].facts == (Fact(kind="parameter", value="text"), Fact(kind="parameter", value="tz"))
    assert found["exceptions"].facts == (Fact(kind="exception", value="ValueError"),)


def test_a_long_signature_is_not_quoted() -> None:
    text = PARSE.replace("tz=None", ", ".join(f"{letter * 18}=None" for letter in "abcdef"))
    assert examples_about(text)["extend"].reasoning == (
        "To see its optional parameters, look at `parse_date` [a.py:1-6]."
    )


def test_a_class_can_be_extended_and_tells_its_bases() -> None:
    text = '''class Loader(Base):
    """Loads rows from a file, one after the other, and closes it in the end."""

    @property
    def size(self):
        """Number of rows that were read so far, header included."""
        return len(self.rows)

    def read(self, path):
        """Read one more row, or nothing at the end of the file."""
        return self.rows[path]
'''
    found = examples_about(text, name="Loader")
    assert found["extend"].final_answer == "Subclass `Loader` and override `size` and `read` as needed."
    assert found["pattern"].final_answer == "`Loader` extends `Base`."
    assert "extend" not in examples_about(f"@dataclass\n{text}", name="Loader")
    assert found["members"].facts == (Fact(kind="method", value="size"), Fact(kind="method", value="read"))


def test_usage_quotes_a_real_call() -> None:
    load = 'def load(row):\n    """Read the date of a row of the table."""\n    return parse_date(row["day"], row)\n'
    text = f"{PARSE}\n\n{load}"
    usage = examples_about(text, name="parse_date")["usage"]
    assert usage.final_answer == '`load` uses `parse_date`: `return parse_date(row["day"], row)`.'
    assert [d.citation for d in usage.oracle_documents] == ["a.py:1-6", "a.py:9-11"]
    assert usage.difficulty == "hard"


def test_usage_quotes_the_call_of_this_one_not_of_its_namesake() -> None:
    text = (
        'class Page:\n    def render(self, text):\n        """Set the text into its frame."""\n        return self.frame(text)\n\n\n'
        'class Chat:\n    def render(self, text):\n        """Set the text into its bubble."""\n        return self.bubble(text)\n\n\n'
        'def show(text):\n    """Show the text in a chat and on a page."""\n    chat = Chat().render(text)\n'
        "    page = Page().render(chat)\n    return page\n"
    )
    mined = mine([SourceFile("a.py", text.encode(), blob_id(text.encode()))])
    page = next(b for b in mined.blocks if b.metadata.qualified_name == "Page.render")
    settings = SynthesisSettings(no_oracle_share=0, families=("usage",))
    (usage,) = synthesize([page], documents=mined.documents, settings=settings).examples
    assert usage.final_answer == "`show` uses `render`: `page = Page().render(chat)`."


def test_what_only_the_documentation_knows_is_not_denied() -> None:
    one = (
        'def f{n}(path, {name}):\n    """Read the path of number {n}{also}."""\n    return read_{n}(path, {name})\n\n\n'
    )
    plain, raising, ignored = (
        "".join(one.format(n=n, name=name, also=also) for n in range(20))
        for name, also in (("key", ""), ("key", "; raises KeyError where there is none"), ("_", ""))
    )
    denied = "does not raise any exception in its own body."
    assert examples_about(plain)["exceptions"].final_answer.endswith(denied)
    assert "exceptions" not in examples_about(raising)
    assert "parameters" in examples_about(raising)
    assert "parameters" not in examples_about(ignored)


def test_go_and_typescript_get_examples_in_their_own_terms() -> None:
    go = (
        "// Put stores a value under its key and fails when full.\n"
        "func (s *Store) Put(key string, value int) error {\n"
        "\tif s.full(key) {\n\t\treturn ErrFull\n\t}\n\treturn s.save(key, value)\n}\n"
    )
    found = examples_about(f"package a\n\n{go}", "a.go")
    assert found["edge_case"].final_answer == "If `s.full(key)`, `Put` returns `ErrFull`."
    assert found["returns"].final_answer == "`Put` is declared to return `error`."
    assert "exceptions" not in found
    ts = (
        "/** Finds a user by the given id, or fails. */\nexport function find(id: string): User {\n"
        "  const user = users.get(id);\n  if (!user) throw new NotFound(id);\n  return user;\n}\n"
    )
    assert examples_about(ts, "a.ts")["exceptions"].final_answer == "`find` throws `NotFound`."


def test_questions_about_the_same_documents_share_them(mined: MiningResult) -> None:
    some = mined.blocks[:60]
    apart, together = (
        Counter(
            example.context_id
            for example in synthesize(
                some, documents=mined.documents, settings=SynthesisSettings(questions_per_context=n)
            ).examples
        )
        for n in (1, 6)
    )
    assert apart.total() == together.total()
    assert len(together) < 0.7 * len(apart)
    oracles: dict[str, set[str]] = {}
    for example in synthesize(some, documents=mined.documents).examples:
        oracles.setdefault(example.context_id, set()).update(d.block_id for d in example.oracle_documents)
    assert any(len(blocks) > 1 for blocks in oracles.values())


def test_chain_of_thought_cites_each_oracle(mined: MiningResult) -> None:
    first, second = mined.blocks[0], mined.blocks[1]
    text = generate_chain_of_thought(f"What does {second.name} do?", [first, second])
    assert sorted(citations_in(text)) == sorted([first.citation, second.citation])
    assert citations_in(generate_chain_of_thought("?", [first])) == [first.citation]
    names = [f"`{b.metadata.qualified_name}` [{b.citation}]" for b in mined.blocks[:3]]
    assert generate_chain_of_thought("?", mined.blocks[:3]) == f"Look at {names[0]}, {names[1]} and {names[2]}."


def test_retrieve_oracle_and_distractors_gives_k_documents(mined: MiningResult) -> None:
    position = next(i for i, b in enumerate(mined.documents) if b.name == "parse_repository")
    oracle = mined.documents[position]
    oracles, distractors = retrieve_oracle_and_distractors("read a repository", mined.documents, position)
    assert oracles == [oracle]
    assert len(distractors) == 2
    assert not any(overlap(oracle, d) for d in distractors)
    oracles, distractors = retrieve_oracle_and_distractors("?", mined.documents, position, k=4, num_distractors=1)
    assert [b.name for b in oracles] == ["parse_repository", "mine_repository", "read_repository"]
    assert len(distractors) <= 1


def test_verification_finds_what_is_made_up(result: SynthesisResult) -> None:
    example = next(e for e in result.examples if e.facts and e.facts[0].kind == "parameter")
    distractor = next(e for e in result.examples if e.distractor_documents).distractor_documents[0]
    changes: list[tuple[dict[str, object], str]] = [
        ({"reasoning": "It is known."}, "cites nothing"),
        ({"reasoning": f"[{distractor.citation}] says so."}, "which is no oracle"),
        ({"final_answer": "It takes nothing."}, "does not state the parameter"),
        ({"final_answer": example.final_answer + " See `invented_name`."}, "`invented_name` is in no oracle"),
        ({"final_answer": example.final_answer + ' It says: "Frobnicates all the gadgets."'}, "quotes documentation"),
        ({"facts": (Fact(kind="exception", value="MadeUpError"),)}, "MadeUpError is not in the oracle"),
        ({"wrong_facts": (example.facts[0],)}, "the wrong parameter"),
        ({"oracle_documents": ()}, "has no oracle but an answer"),
    ]
    for change, message in changes:
        assert any(message in problem for problem in verify_example(example.model_copy(update=change))), message


def test_no_blocks_give_no_examples() -> None:
    assert synthesize([]).examples == []


def test_the_module_runs_as_a_command() -> None:
    command = [sys.executable, "-W", "error", "-m", "ai_forge.data_pipeline.raft_generator", str(SOURCE)]
    done = subprocess.run([*command, "--max-examples", "9"], capture_output=True, text=True, check=True)
    assert len([RAFTExample.model_validate_json(line) for line in done.stdout.splitlines()]) <= 9
    assert json.loads(done.stderr)["leaks"] == 0
