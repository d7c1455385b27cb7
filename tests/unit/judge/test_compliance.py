"""Compliance probes: the same prompts to both, counted by rule, and every answer in the report."""

from collections.abc import Sequence

from ai_forge.config import JudgeSettings
from ai_forge.data_pipeline.schemas.probes import ComplianceProbe, PhraseCheck
from ai_forge.judge.compliance import WHOSE, TaskAnswers, ask_both, compliance_report, judge_compliance


def probe(rule: int, prompt: str) -> ComplianceProbe:
    check = PhraseCheck(phrase=f"rule {rule}")
    return ComplianceProbe(
        prompt=prompt, check=check, rule=f"Say rule {rule}.", rule_id=str(rule), path="r.md", first_line=1
    )


PROBES = [probe(rule, f"task {n} of {rule}") for rule in range(6) for n in range(2)]


def follows(prompts: Sequence[str]) -> list[str]:
    return [f"Here is Rule {prompt[-1]}." for prompt in prompts]


def ignores(prompts: Sequence[str]) -> list[str]:
    return ["Sure." for _ in prompts]


def only_first_rule(prompts: Sequence[str]) -> list[str]:
    return ["rule 0" if prompt.endswith("0") else "" for prompt in prompts]


def test_a_model_that_keeps_rules_that_the_base_does_not_is_better() -> None:
    verdict = judge_compliance(ask_both(PROBES, ignores, follows), JudgeSettings())
    assert verdict.better
    assert verdict.headline == (
        "Better than the base: keeps the rules in 12 of 12 probes without a system prompt (base: 0)."
    )
    assert verdict.checks[0].text == "+100.0% (+100.0% to +100.0%) of the probes; must be above 0"


def test_one_rule_more_is_not_enough() -> None:
    verdict = judge_compliance(ask_both(PROBES, ignores, only_first_rule), JudgeSettings())
    assert not verdict.better
    assert verdict.checks[0].passed is False


def test_without_probes_nothing_is_scored() -> None:
    verdict = judge_compliance(ask_both([], ignores, follows), JudgeSettings())
    assert not verdict.better
    assert verdict.checks[0].passed is None


def test_the_report_shows_every_answer() -> None:
    made = ask_both(PROBES[:1], ignores, only_first_rule)
    text = compliance_report(judge_compliance(made, JudgeSettings()), made, {"steps": "60"})
    assert "- steps: 60" in text
    assert (
        "## task 0 of 0\n\nRule (r.md:1): Say rule 0.\n\nbase, not kept:\n\n> Sure.\n\ntuned, kept:\n\n> rule 0\n"
        in text
    )


def test_of_baked_rules_the_report_tells_what_the_base_does_with_the_rules_before_it() -> None:
    rows = [
        TaskAnswers(task="Add a column.", base="Sure.", told="Rule 0: I add it.", tuned="Rule 0. Done."),
        TaskAnswers(task="Remove a column.", base="Sure.", told="I remove it.", tuned="By rule 0 I remove it."),
    ]
    made = ask_both(PROBES[:1], ignores, follows).model_copy(
        update={"tasks": tuple(rows), "checks": (PhraseCheck(phrase="rule 0"),)}
    )
    assert [made.kept_on_tasks(who) for who in WHOSE] == [0, 1, 2]
    text = compliance_report(judge_compliance(made, JudgeSettings()), made, {})
    assert "On 2 ordinary tasks that were not trained on, the rules of every answer are kept in 2 answers" in text
    assert "by the base in 0, and in 1 where it has the rules before it" in text
    assert "base, told the rules:\n\n> I remove it.\n\ntuned:\n\n> By rule 0 I remove it." in text
