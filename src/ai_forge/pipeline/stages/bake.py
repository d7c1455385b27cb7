"""Stage `bake`: ordinary tasks, answered by the base with the team's rules before it; learned without them.

Left in its folder: `baked.jsonl` (task and answer), `held_out.jsonl` (tasks that are not trained on), `rules.md`,
`teacher.safetensors` with what the writer thought, `sample.md` to be read, and the files that an attempt which was cut off
continues from.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from ai_forge.data_pipeline.datasets.storage import read_jsonl
from ai_forge.data_pipeline.handbook.agent_folder import find_agent_folder, read_agent_folder
from ai_forge.data_pipeline.handbook.files import read_probes
from ai_forge.data_pipeline.handbook.scenarios import EVERY_ANSWER
from ai_forge.data_pipeline.handbook.tasks import (
    TASKS_VERSION,
    asked,
    checks_of_every_answer,
    ruled_messages,
    rules_of,
    topics_of,
)
from ai_forge.data_pipeline.schemas.code_blocks import content_id
from ai_forge.json_lines import write_jsonl
from ai_forge.pipeline.stage import Outputs, Stage, StageContext, Summary
from ai_forge.pipeline.stages.natural import TEACHER, writer_of
from ai_forge.workspace import atomic_write, stage_key

if TYPE_CHECKING:
    from ai_forge.pipeline.run import Run
    from ai_forge.prompting.prompt import Message
    from ai_forge.training.supervised_data import Lesson

RULES = "rules.md"
HELD_OUT_SHARE, MOST_HELD_OUT = 0.15, 60
SHOWN_IN_SAMPLE = 20


class Task(BaseModel):
    """A task of the team, with the answer that was written under the rules where there is one."""

    model_config = ConfigDict(frozen=True)

    task: str
    answer: str = ""


class BakeSummary(Summary):
    """How many tasks were written, answered so that the rules of every answer are kept, and held out."""

    model_config = ConfigDict(frozen=True)

    writer: str
    tasks: int
    train: int
    held_out: int
    rules_words: int
    checked_in_every_answer: int
    dropped: dict[str, int]
    content: str

    def sentence(self) -> str:
        """In a few words."""
        return f"{self.train} tasks answered under the rules by {self.writer}, {self.held_out} others held out"


def _inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
    synthesis = run.settings.synthesis
    return {
        "dataset": outputs.key("dataset"),
        "rules": run.sources.get("rules"),
        "base": run.base,
        "asked": [synthesis.baked_tasks, synthesis.natural_samples, synthesis.natural_writer, synthesis.seed],
        "prompts": TASKS_VERSION,
    }


def _build(context: StageContext) -> BakeSummary:
    from ai_forge.training.baking import Baker
    from ai_forge.training.scribe import Scribe, save_thoughts

    synthesis = context.run.settings.synthesis
    agent = read_agent_folder(find_agent_folder(context.run.repository))
    checks = checks_of_every_answer(read_probes(context.outputs.folder("dataset")))
    writer, tokenizer, name, same_tokens = writer_of(context, "tasks, and answers that keep the rules")
    rules = rules_of(agent)
    baker = Baker(
        Scribe(writer, tokenizer, synthesis.seed, synthesis.natural_samples),
        context.folder,
        rules,
        checks,
        context.report,
    )
    tasks = baker.tasks(topics_of(agent), synthesis.baked_tasks, EVERY_ANSWER)
    n_held_out = min(MOST_HELD_OUT, round(HELD_OUT_SHARE * len(tasks)))
    # drawn: tasks are in the order of the handbook's sections
    held_out = random.Random(f"{synthesis.seed}/held out").sample(tasks, n_held_out)
    trained = [task for task in tasks if task not in held_out]
    answered = baker.answer(trained)
    if same_tokens:
        save_thoughts(context.folder / TEACHER, [task for task, _ in answered], baker.thoughts(answered))
    atomic_write(context.folder / RULES, rules)
    rows = [Task(task=task, answer=answer) for task, answer in answered]
    write_jsonl(context.folder / "baked.jsonl", rows)
    write_jsonl(context.folder / "held_out.jsonl", [Task(task=task) for task in held_out])
    shown = "\n".join(f"## {row.task}\n\n{row.answer}\n" for row in rows[:SHOWN_IN_SAMPLE])
    atomic_write(
        context.folder / "sample.md", f"# Tasks answered under the rules, the first of those trained on\n\n{shown}"
    )
    return BakeSummary(
        writer=name,
        tasks=len(tasks),
        train=len(rows),
        held_out=len(held_out),
        rules_words=len(rules.split()),
        checked_in_every_answer=len(checks),
        dropped=dict(baker.dropped.most_common()),
        content=stage_key(rows=[row.model_dump() for row in rows], held_out=held_out, teacher=same_tokens),
    )


def baked_lessons(outputs: Outputs) -> list[Lesson]:
    """What is trained on beside the handbook's pairs; nothing where the run bakes nothing."""
    from ai_forge.training.scribe import load_thoughts
    from ai_forge.training.supervised_data import Lesson

    if "bake" not in outputs:
        return []
    folder = outputs.folder("bake")
    thoughts = load_thoughts(folder / TEACHER)
    return [
        Lesson(content_id(row.task), row.task, asked(row.task), row.answer, thoughts.get(row.task))
        for row in read_jsonl(folder / "baked.jsonl", Task)
    ]


def rules_before(outputs: Outputs, tasks: Sequence[str]) -> list[list[Message]]:
    """The tasks as the writer was asked them."""
    rules = (outputs.folder("bake") / RULES).read_text(encoding="utf-8")
    return [ruled_messages(rules, task) for task in tasks]


def held_out_tasks(outputs: Outputs) -> list[str]:
    """Tasks that nobody was trained on."""
    if "bake" not in outputs:
        return []
    return [row.task for row in read_jsonl(outputs.folder("bake") / "held_out.jsonl", Task)]


MADE_OF = ("ai_forge.training.baking", "ai_forge.data_pipeline.handbook.tasks")
BAKE = Stage(
    "bake",
    ("dataset",),
    1,
    _inputs,
    _build,
    BakeSummary,
    MADE_OF,
    resumable=True,
    applies=lambda run: run.settings.synthesis.baked_tasks > 0,
)
