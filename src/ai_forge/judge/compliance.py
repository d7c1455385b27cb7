"""Are the handbook's rules followed without a system prompt? Base and tuned model answer the same compliance probes.

Each is asked in its own way, the base through its chat template and the tuned model as it is deployed, with no system message
of ours. Answers are greedy. A probe's check is made by a machine (`schemas/probes.py`): it sees whether the one rule is kept,
not whether the answer is good.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ai_forge.config import JudgeSettings
from ai_forge.data_pipeline.schemas.probes import Check as RuleCheck
from ai_forge.data_pipeline.schemas.probes import ComplianceProbe
from ai_forge.judge.plain_report import head_of, quoted
from ai_forge.judge.statistics import Estimate, paired_difference, proportion, surely_above_zero
from ai_forge.judge.verdict import Check, Verdict, signed, start_of_headline

Whose = Literal["base", "told", "tuned"]
WHOSE: tuple[Whose, ...] = ("base", "told", "tuned")
Ask = Callable[[Sequence[str]], Sequence[str]]
"""Prompts to answers."""


class ProbeAnswers(BaseModel):
    """One probe with both answers."""

    model_config = ConfigDict(frozen=True)

    probe: ComplianceProbe
    base: str
    tuned: str

    @property
    def base_passes(self) -> bool:
        """Whether the base keeps the rule."""
        return self.probe.passes(self.base)

    @property
    def tuned_passes(self) -> bool:
        """Whether the tuned model keeps the rule."""
        return self.probe.passes(self.tuned)


class TaskAnswers(BaseModel):
    """An ordinary task that nothing was trained on: the base, the base with the rules before it, and the tuned model."""

    model_config = ConfigDict(frozen=True)

    task: str
    base: str
    told: str
    tuned: str


class Compliance(BaseModel):
    """All probes, answered; of baked rules also `tasks`, whose answers must all pass `checks`."""

    model_config = ConfigDict(frozen=True)

    answers: tuple[ProbeAnswers, ...]
    tasks: tuple[TaskAnswers, ...] = ()
    checks: tuple[RuleCheck, ...] = ()

    def kept_on_tasks(self, whose: Whose) -> int:
        """On how many tasks the rules of every answer are kept."""
        return sum(all(check.passes(getattr(row, whose)) for check in self.checks) for row in self.tasks)

    def shares(self, confidence: float) -> tuple[Estimate | None, Estimate | None]:
        """Share of the probes that base and tuned model pass."""
        sides = [a.base_passes for a in self.answers], [a.tuned_passes for a in self.answers]
        return proportion(sides[0], confidence), proportion(sides[1], confidence)

    def gain(self, settings: JudgeSettings) -> Estimate | None:
        """Tuned − base, by rule."""
        return paired_difference(
            [a.tuned_passes for a in self.answers],
            [a.base_passes for a in self.answers],
            groups=[a.probe.rule_id for a in self.answers],  # probes about one rule are not independent
            confidence=settings.confidence,
            seed=settings.seed,
        )


def ask_both(probes: Sequence[ComplianceProbe], base: Ask, tuned: Ask) -> Compliance:
    """The answers of both to all probes."""
    prompts = [probe.prompt for probe in probes]
    rows = zip(probes, base(prompts), tuned(prompts), strict=True)  # one after the other: two models may not fit
    return Compliance(answers=tuple(ProbeAnswers(probe=p, base=b, tuned=t) for p, b, t in rows))


def judge_compliance(compliance: Compliance, settings: JudgeSettings) -> Verdict:
    """Better only if surely more probes pass than before."""
    n = len(compliance.answers)
    if n == 0:
        unscored = Check("compliance", None, "no probes: none of the rules can be checked by a machine")
        return Verdict(False, "Not judged: there are no probes.", (unscored,))
    gain = compliance.gain(settings)
    check = Check("compliance", surely_above_zero(gain), f"{signed(gain, percent=True)} of the probes; must be above 0")
    better = bool(check.passed)
    ours, theirs = sum(a.tuned_passes for a in compliance.answers), sum(a.base_passes for a in compliance.answers)
    measured = f"keeps the rules in {ours} of {n} probes without a system prompt (base: {theirs})"
    return Verdict(better, f"{start_of_headline(better)}: {measured}.", (check,))


def compliance_report(verdict: Verdict, compliance: Compliance, figures: dict[str, str]) -> str:
    """Markdown: the verdict, `figures` by name, and every probe with both answers."""
    lines = head_of(verdict, figures)
    lines += ["", "The checks see whether the one rule is kept, not whether the answer is good: read the answers."]
    if compliance.tasks and compliance.checks:
        n = len(compliance.tasks)
        base, told, tuned = (compliance.kept_on_tasks(who) for who in WHOSE)
        lines += [
            "",
            f"On {n} ordinary tasks that were not trained on, the rules of every answer are kept in {tuned} answers without a "
            f"system prompt; by the base in {base}, and in {told} where it has the rules before it.",
        ]
    for task in compliance.tasks:
        lines += ["", f"## {task.task}"]
        for who, answer in (("base", task.base), ("base, told the rules", task.told), ("tuned", task.tuned)):
            lines += quoted(who, answer)
    for row in compliance.answers:
        lines += ["", f"## {row.probe.prompt}", "", f"Rule ({row.probe.path}:{row.probe.first_line}): {row.probe.rule}"]
        for who, passes, answer in (("base", row.base_passes, row.base), ("tuned", row.tuned_passes, row.tuned)):
            lines += quoted(f"{who}, {'kept' if passes else 'not kept'}", answer)
    return "\n".join(lines) + "\n"
