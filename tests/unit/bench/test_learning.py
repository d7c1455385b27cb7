"""The learning lab: the token budget, what lessons change, and a study of a tiny model that is continued."""

import json
from pathlib import Path
from typing import Any

import pytest

import learning
from ai_forge.data_pipeline.datasets.storage import write_jsonl
from ai_forge.training.tokens.packing import TokenizedExample, collate, step_order
from cli_runs import SETTINGS, stdlib_copy, tiny_base
from lessons import Distractors, Instead, WithoutFamilies, step_tokens
from tiny_training import document, raft_examples, tiny_config

PROMPTS = {context: tuple(range(100 * n, 100 * n + 90)) for n, context in enumerate("abc", 1)}
EXAMPLES = [
    TokenizedExample((*PROMPTS[context], 3, *range(5, 10 + i)), 91, context) for i, context in enumerate("abcabcab")
]


@pytest.mark.parametrize("budget", [1, 150, 1000, 5000])
def test_the_budget_is_met_by_the_tokens_that_the_steps_compute(budget: int) -> None:
    config = tiny_config(micro_batch_size=2, grad_accum_steps=2)
    steps = step_tokens(budget, EXAMPLES, config)
    contexts = [example.context for example in EXAMPLES]
    computed = []
    for step in range(len(steps) + 1):
        chosen = [EXAMPLES[i] for i in step_order(contexts, 4, step, config.seed)]
        computed.append(sum(collate(chosen[first : first + 2]).n_tokens for first in (0, 2)))
    assert steps == computed[:-1]
    assert min(steps) < sum(len(EXAMPLES[i].ids) for i in step_order(contexts, 4, 0, config.seed))  # prompts are shared
    missed = abs(sum(steps) - budget)
    assert missed <= abs(sum(computed) - budget)
    assert len(steps) == 1 or missed <= abs(sum(steps[:-1]) - budget)


def test_families_are_left_out_and_the_others_stay_as_they_are() -> None:
    examples = [e.model_copy(update={"family": f}) for e, f in zip(raft_examples(4), "abca", strict=True)]
    assert WithoutFamilies(("a", "d"))(examples) == examples[1:3]


def test_distractors_change_and_questions_and_oracles_do_not() -> None:
    examples = raft_examples(8)
    unanswerable = examples[0].model_copy(update={"oracle_documents": (), "distractor_documents": (document("seek"),)})
    given = [*examples, unanswerable]
    made = {kind: Distractors(kind)(given) for kind in ("hard", "random", "none")}  # type: ignore[arg-type]
    assert made["hard"] == examples
    assert not any(example.distractor_documents for example in made["none"])
    for before, *after in zip(examples, made["random"], made["none"], strict=True):
        assert {(e.question, e.oracle_documents, e.target) for e in after} == {
            (before.question, before.oracle_documents, before.target)
        }
    for before, after in zip(examples, made["random"], strict=True):
        assert len(after.distractor_documents) == len(before.distractor_documents)
        assert not set(after.distractor_documents) & set(before.oracle_documents)
    assert any(a.distractor_documents != b.distractor_documents for a, b in zip(examples, made["random"], strict=True))
    assert Distractors("random")(given) == made["random"]


def test_other_examples_stand_in_but_for_those_that_show_a_held_out_file(tmp_path: Path) -> None:
    ours = raft_examples(6)
    held_out = document("seek").model_copy(update={"citation": "held_out.py:1-2", "path": "held_out.py"})
    leaking = ours[0].model_copy(update={"distractor_documents": (held_out,)})
    write_jsonl(tmp_path / "other.jsonl", [ours[3], leaking, ours[1]])
    assert Instead.of(tmp_path / "other.jsonl")(ours) == [ours[3], ours[1]]


@pytest.mark.slow
def test_a_study_is_continued_and_all_variants_answer_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = SETTINGS | {"training.base_model": tiny_base(tmp_path / "base")}
    del settings["training.max_steps"], settings["judge.n_questions"]
    repo = stdlib_copy(tmp_path / "repo", ("bisect.py", "heapq.py", "textwrap.py", "shlex.py"))
    words = ["families", repo, "--tokens", 1500, "--questions", 4, "--seeds", 1, "--home", tmp_path / "home"]
    words += ["--results", tmp_path / "results", *(w for k, v in settings.items() for w in ("--set", f"{k}={v}"))]

    def study(*more: str) -> dict[str, Any]:
        assert learning.main([*map(str, words), *more]) == 0
        told: dict[str, Any] = json.loads((tmp_path / "results" / "learning-families.json").read_text())
        return told

    first = study("--only", "all")["runs"]
    capsys.readouterr()
    both = study("--only", "all", "without purpose")
    lines = capsys.readouterr().out.splitlines()
    assert both["runs"][:1] == first
    assert "(known)" in lines[0]
    assert "min left" in lines[1]
    whole, without = both["runs"]
    assert "purpose" in whole["families"]
    assert without["families"] == {name: n for name, n in whole["families"].items() if name != "purpose"}
    assert whole["base_citations"] == without["base_citations"]
    for run in both["runs"]:
        assert run["curve"][-1]["step"] == run["steps"]
        assert run["curve"][-1]["tokens"] == run["tokens"]
    assert set(both["table"][1]["against all"]) == {"citations", "facts", "answer_loss"}
    assert (tmp_path / "results" / "learning-families.png").stat().st_size > 10_000
    records = [json.loads(line) for line in (tmp_path / "home" / "lab.jsonl").read_text().splitlines()]
    assert len(records) == 5  # two trainings, their two judgements; the base is asked once
    assert list((tmp_path / "home" / "cache" / "merge").iterdir()) == []
