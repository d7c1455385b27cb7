"""Rules baked into weights: what is asked of the writer, which answers are taught, and that the task alone is learned."""

from pathlib import Path

import pytest
from test_natural_training import Scripted

from ai_forge.data_pipeline.handbook.agent_folder import read_agent_folder
from ai_forge.data_pipeline.handbook.handbook import handbook_of
from ai_forge.data_pipeline.handbook.tasks import checks_of_every_answer, rules_of, topics_of
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.training.baking import Baker
from ai_forge.training.scribe import Scribe
from tiny_models import make_tiny

LEDGER = Path(__file__).parents[2] / "fixtures" / "ledger"
THINGS = (("currency", "monthly"), ("country", "nightly"), ("balance", "customer"))
AUDIT = "Identity audit: senior developer of the ledger. "


class Obedient(Scripted):
    """Writes three tasks a topic, and keeps the first rule in every other answer."""

    def reply(self, prompt: str, number: int) -> str:
        if "one a line" in prompt:
            thing, job = THINGS[number]
            return f"1. Add a {thing} column to the {job} report.\n2. Why does {job} {thing} stop at night?\nWhy?"
        return f"{AUDIT}I add it." if number % 2 else "Sure, I add it."


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    return ChatTokenizer(make_tiny(tmp_path_factory.mktemp("tiny") / "m"))


def test_rules_that_always_hold_come_first_and_are_checked_in_every_answer() -> None:
    agent = read_agent_folder(LEDGER)
    rules = rules_of(agent)
    assert rules.index("Identity audit") < rules.index("Money")
    assert len(rules_of(agent, 300)) < len(rules)
    (check,) = checks_of_every_answer(handbook_of(agent).probes)
    assert check.passes(f"{AUDIT}I begin.")
    assert not check.passes("I begin.")


def test_only_answers_that_keep_the_rules_of_every_answer_are_taught(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    agent = read_agent_folder(LEDGER)
    checks = checks_of_every_answer(handbook_of(agent).probes)

    def baker() -> Baker:
        script = Obedient(tokenizer, reads_many=True)
        return Baker(Scribe(script, tokenizer, 0, samples=4), tmp_path, rules_of(agent), checks, lambda *_: None)

    first = baker()
    tasks = first.tasks(topics_of(agent)[:3], 5, ["Add a country column to the nightly report."])
    assert len(tasks) == 5
    assert "Add a country column to the nightly report." not in tasks  # another one is asked so
    answered = first.answer(tasks)
    assert [task for task, _ in answered] == tasks
    assert {answer for _, answer in answered} == {f"{AUDIT}I add it."}
    assert first.dropped == {"breaks_a_rule": 10}
    thoughts = first.thoughts(answered)
    certain = [int((thought.log_probs[:, 0] == 0).sum()) for thought in thoughts]
    assert all(0 < n < len(thought.ids) for n, thought in zip(certain, thoughts, strict=True))  # the phrase, no more
    again = baker()
    assert again.answer(again.tasks(topics_of(agent)[:3], 5)) == answered
    assert again.scribe.writer.calls == []  # type: ignore[attr-defined]
