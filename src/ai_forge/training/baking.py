"""Rules baked into weights: ordinary tasks, answered by the base with the rules before it, learned without them.

    topic ─ask─► tasks ─answer under the rules, sampled─► checks ─► lesson + the writer's top tokens

What rules about every answer demand ("begin with …") is checked by a machine, and an answer that breaks one is not taught. Of
the others the one is taught that says what most samples say. Whether it keeps each rule that applies only here is not checked.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ai_forge.data_pipeline.examples.asked import asks_the_same
from ai_forge.data_pipeline.handbook.tasks import (
    TASKS_A_TOPIC,
    demanded_by,
    read_tasks,
    ruled_messages,
    task_messages,
)
from ai_forge.data_pipeline.schemas.probes import Check
from ai_forge.events import Progress
from ai_forge.training.scribe import ANSWER_TEMPERATURE, Scribe, append, best_of, rows_of
from ai_forge.training.tokens.packing import TeacherTokens

TASK_TOKENS, ANSWER_TOKENS = 256, 400
TASK_TEMPERATURE = 0.9


@dataclass
class Baker:
    """Writes tasks and answers into `folder`; `rules` are what the writer sees, `checks` hold for every answer."""

    scribe: Scribe
    folder: Path
    rules: str
    checks: Sequence[Check]
    samples: int
    progress: Progress
    dropped: Counter[str] = field(default_factory=Counter)

    def tasks(self, topics: Sequence[str], n: int, known: Sequence[str] = ()) -> list[str]:
        """At most `n` tasks around `topics`, in turn and again; none asks what one of the `known` does."""
        path = self.folder / "tasks.jsonl"
        taken = [str(row["task"]) for row in rows_of(path)]
        for turn in range(1 + n // max(1, len(topics))):
            if len(taken) >= n:
                break
            prompts = [task_messages(t, TASKS_A_TOPIC, f"{self.scribe.seed}/{turn}/{t}") for t in topics]
            for reply, _ in self.scribe.sampled(prompts, TASK_TOKENS, TASK_TEMPERATURE, f"tasks {turn}"):
                for task in read_tasks(reply):
                    if len(taken) < n and not any(asks_the_same(task, other) for other in (*known, *taken)):
                        taken.append(task)
                        append(path, {"task": task})
            self.progress(min(len(taken), n), n, "tasks")
        return taken[:n]

    def answer(self, tasks: Sequence[str]) -> list[tuple[str, str]]:
        """The tasks that have an answer which keeps the rules of every answer, with it."""
        path = self.folder / "answered.jsonl"
        known = {row["task"]: row for row in rows_of(path)}
        left = [task for task in tasks if task not in known]
        for first in range(0, len(left), per_call := self.scribe.at_a_time(self.samples)):
            now = left[first : first + per_call]
            prompts = [ruled_messages(self.rules, task) for task in now for _ in range(self.samples)]
            told = self.scribe.sampled(prompts, ANSWER_TOKENS, ANSWER_TEMPERATURE, f"answer {now[0]}")
            for place, task in enumerate(now):
                own = told[place * self.samples : (place + 1) * self.samples]
                known[task] = {"task": task, **best_of(own, self._problem_of)}
                append(path, known[task])
            self.progress(first + len(now), len(left), "answers under the rules")
        for row in known.values():
            self.dropped.update(row["dropped"])
        return [(task, known[task]["answer"]) for task in tasks if known[task]["answer"]]

    def _problem_of(self, answer: str) -> str | None:
        if not all(check.passes(answer) for check in self.checks):
            return "breaks_a_rule"
        return None

    def thoughts(self, answered: Sequence[tuple[str, str]]) -> list[TeacherTokens]:
        """What the writer thought along each answer; what the checks demand is certain."""
        written = [
            (ruled_messages(self.rules, task), answer, demanded_by(answer, self.checks)) for task, answer in answered
        ]
        return self.scribe.thoughts(written, self.progress)
