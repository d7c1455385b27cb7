"""Rules baked into weights: ordinary tasks, answered by the base with the rules before it, learned without them.

    topic ─ask─► tasks ─answer under the rules, sampled─► checks ─► lesson + the writer's top tokens

What rules about every answer demand ("begin with …") is checked by a machine, and an answer that breaks one is not taught. Of
the others the one is taught that says what most samples say. Whether it keeps each rule that applies only here is not checked.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
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
from ai_forge.training.scribe import Put, Scribe, append, rows_of
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
    progress: Progress
    dropped: Counter[str] = field(default_factory=Counter)

    def tasks(self, topics: Sequence[str], n: int, known: Sequence[str] = ()) -> list[str]:
        """At most `n` tasks around `topics`, in turn and again; none asks what one of the `known` does."""
        path = self.folder / "tasks.jsonl"
        taken = [str(row["task"]) for row in rows_of(path)]
        asked = [(turn, topic) for turn in range(1 + n // max(1, len(topics))) for topic in topics]
        per_call = min(self.scribe.at_a_time(), max(1, len(topics)))
        for first in range(0, len(asked), per_call):
            if len(taken) >= n:
                break
            now = asked[first : first + per_call]
            prompts = [task_messages(each, TASKS_A_TOPIC, f"{self.scribe.seed}/{turn}/{each}") for turn, each in now]
            replies = self.scribe.sampled(prompts, TASK_TOKENS, TASK_TEMPERATURE, f"tasks {now[0][0]}")
            for task in chain.from_iterable(read_tasks(reply) for reply, _ in replies):
                if len(taken) < n and not any(asks_the_same(task, other) for other in (*known, *taken)):
                    taken.append(task)
                    append(path, {"task": task})
            self.progress(min(len(taken), n), n, "tasks")
        return taken[:n]

    def answer(self, tasks: Sequence[str]) -> list[tuple[str, str]]:
        """The tasks that have an answer which keeps the rules of every answer, with it."""
        questions = [Put(task, ruled_messages(self.rules, task), self._problem_of) for task in tasks]
        answers, self.dropped = self.scribe.answered(
            self.folder / "answered.jsonl", questions, ANSWER_TOKENS, self.progress
        )
        return [(task, answers[task]) for task in tasks if task in answers]

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
