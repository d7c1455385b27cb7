"""Stage `dataset`: blocks to train, valid and test examples: split before synthesis, validated, with a quality report.

Beside the examples it keeps the text of the held-out files, so that nothing after it reads the repository again: what is
judged is the code that was held out, whatever became of the repository while the model was trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict

from ai_forge.data_pipeline.dataset import (
    SIDES,
    Dataset,
    make_dataset,
    require_no_leak,
    taught,
    without_team_questions,
)
from ai_forge.data_pipeline.datasets.storage import write_dataset
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.data_pipeline.schemas.team_questions import TeamQuestion
from ai_forge.data_pipeline.secrets.masking import is_name_clean, scrub, scrub_text
from ai_forge.data_pipeline.source.team_questions import QUESTIONS_FILE, read_team_questions
from ai_forge.data_pipeline.teacher.client import resolve_teacher
from ai_forge.data_pipeline.teacher.prompt import PROMPT_VERSION
from ai_forge.data_pipeline.teacher.rewording import AnswerCache
from ai_forge.data_pipeline.validator import generate_quality_report
from ai_forge.errors import InputError
from ai_forge.events import Notice
from ai_forge.json_lines import JsonObject, read_jsonl, write_jsonl
from ai_forge.pipeline.dropped import dropped_examples
from ai_forge.pipeline.embedder import with_address
from ai_forge.pipeline.sources import dates_of
from ai_forge.pipeline.stage import Outputs, Stage, StageContext, Summary
from ai_forge.pipeline.stages.notes import NotesSummary, notes_of
from ai_forge.workspace import atomic_write, stage_key

if TYPE_CHECKING:
    from ai_forge.pipeline.run import Run

NATURAL_SETTINGS = {"natural_questions", "natural_writer", "natural_samples", "natural_share"}  # of a stage of its own
LATER_SETTINGS = {"baked_tasks", "completion_share"}  # likewise; not recorded beside the examples either
HELD_OUT_CODE = "held_out_code.json"
TEAM_QUESTIONS = "team_questions.jsonl"
RECORDED = ("miner", "split", "synthesis", "validator")  # the settings that say how the examples were made


class SplitSummary(Summary):
    """How the files were dealt, and by which rule."""

    model_config = ConfigDict(frozen=True, extra="allow")

    rule: str


class DatasetSummary(Summary):
    """Examples by side, what was left out by reason, how files were dealt.

    `content` is the hash of what is trained on, `judged` that of what is held out: what follows is keyed by these, so a
    dataset that was made again and is the same changes nothing.
    """

    train: int
    valid: int
    test: int
    rejected: dict[str, int]
    split: SplitSummary
    content: str
    judged: str
    teacher: JsonObject | None = None

    def sentence(self) -> str:
        """In a few words."""
        return f"{self.train} examples to train on, {self.valid} to stop on, {self.test} held out"


def _inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
    settings = run.settings
    notes = prompt = None
    if "notes" in outputs:
        notes = outputs.summary("notes", NotesSummary).content
    if settings.synthesis.teacher:
        prompt = PROMPT_VERSION  # without a teacher no prompt is written: another one would change nothing
    return {
        "mine": outputs.key("mine"),
        "notes": notes,  # by content: a new commit that says nothing about the code makes no example anew
        "dates": run.sources.get("dates"),
        "split": settings.split.model_dump(),
        "synthesis": settings.synthesis.model_dump(exclude=NATURAL_SETTINGS | LATER_SETTINGS),
        "validator": settings.validator.model_dump(),
        "prompt": prompt,
        # only where there are any, so that nothing is made anew for those who have none
        **{name: run.sources[name] for name in ("dropped", "team_questions") if name in run.sources},
    }


def _build(context: StageContext) -> DatasetSummary:
    settings, repository = context.run.settings, context.opened.repository
    dataset = make_dataset(
        context.opened.mine(),
        settings,
        dates=dates_of(repository, settings),
        notes=notes_of(context.outputs),
        embedder=with_address(settings.synthesis.embedder, settings),
        graph_of=context.opened.graph,
        progress=lambda side: context.report(SIDES.index(side), len(SIDES), side),
    )
    if dataset.split.because:  # the rule was chosen for a reason that the user may want to know
        context.emit(Notice("info", f"Held out {dataset.split.rule}."))
    cost = None
    if settings.synthesis.teacher:
        dataset, cost = _taught(context, dataset)
    dataset = dataset.without(dropped_examples(context.workspace, context.run.model))
    asked = _team_questions(context)
    dataset = without_team_questions(dataset, asked)  # after the teacher as well
    require_no_leak(dataset)  # after the teacher, whose words are new text
    code = _write(context, dataset)
    ids = {side: [example.id for example in dataset.sides[side]] for side in SIDES}
    content = stage_key(train=ids["train"], valid=ids["valid"])
    judged = stage_key(test=ids["test"], code=code)
    if asked:
        judged = stage_key(judged=judged, team=context.run.sources["team_questions"])
    return DatasetSummary.model_validate(dataset.summary() | {"content": content, "judged": judged, "teacher": cost})


def _write(context: StageContext, dataset: Dataset) -> list[tuple[str, str]]:
    """Write everything; returns the held-out code."""
    side_of_file = dataset.split.side_of_file
    # a file may be called by a secret: it is not mined, and its name is kept nowhere
    files = {
        side: sorted(path for path in side_of_file if side_of_file[path] == side and is_name_clean(path))
        for side in SIDES
    }
    atomic_write(context.folder / "split.json", json.dumps(files, indent=1))
    run = context.run
    write_dataset(
        context.folder,
        dataset.sides,
        RAFTExample,
        provenance={"repository": run.repository_name, "commit": run.commit, "mined": context.outputs.key("mine")},
        settings={name: getattr(run.settings, name).model_dump(exclude=LATER_SETTINGS) for name in RECORDED},
    )
    every = [example for side in SIDES for example in dataset.sides[side]]
    atomic_write(context.folder / "quality.md", generate_quality_report(every))
    held_out, placeholder = set(files["test"]), run.settings.miner.secret_placeholder
    # masked as the examples are: what is written here is fed to models and lies in the cache for long
    code = [
        (file.path, scrub(file.content, placeholder).content.decode("utf-8", "ignore"))
        for file in context.opened.repository.files
        if file.path in held_out
    ]
    atomic_write(context.folder / HELD_OUT_CODE, json.dumps(code, ensure_ascii=False))
    return code


def _taught(context: StageContext, dataset: Dataset) -> tuple[Dataset, JsonObject]:
    """The dataset in the teacher's words, and what that cost."""
    from ai_forge.serving.ollama_http import ollama_url

    settings = context.run.settings
    teacher = resolve_teacher(settings.synthesis.teacher, ollama_url(settings.runtime.ollama_host))
    if not teacher.is_here:  # nothing leaves this machine without a word
        context.emit(Notice("warning", f"The shown code and its questions are sent to {teacher.url}."))
    # answers are kept by teacher and prompt, for all datasets: they cost the most of all that a run makes
    key = stage_key(teacher=teacher.name, prompt=PROMPT_VERSION)
    with closing(AnswerCache(context.workspace.cache_dir / "teacher" / f"{key}.jsonl")) as cache:
        return taught(
            dataset, teacher, cache, settings, context.report, lambda text: context.emit(Notice("info", text))
        )


def _team_questions(context: StageContext) -> tuple[TeamQuestion, ...]:
    """The team's questions, kept with the examples: what is judged is what was asked when the run was made."""
    if "team_questions" not in context.run.sources:
        return ()
    read = read_team_questions(context.run.repository)
    if read is None or read.state != context.run.sources["team_questions"]:
        raise InputError(
            f"{QUESTIONS_FILE} changed while run {context.run.id} was at work.", "start it anew: ai-forge run."
        )
    # masked as everything that is kept: a question may quote the line that it is about
    asked = tuple(_without_secrets(question) for question in read.questions)
    write_jsonl(context.folder / TEAM_QUESTIONS, asked)
    return asked


def _without_secrets(question: TeamQuestion) -> TeamQuestion:
    told = {"question": scrub_text(question.question), "answer": question.answer and scrub_text(question.answer)}
    lists = {name: tuple(map(scrub_text, getattr(question, name))) for name in ("must", "must_not")}
    return question.model_copy(update=told | lists)


def team_questions(outputs: Outputs) -> list[TeamQuestion]:
    """The team's own questions, in the order of its file; none where it has none."""
    path = outputs.folder("dataset") / TEAM_QUESTIONS
    if not path.is_file():
        return []
    return read_jsonl(path, TeamQuestion)


def held_out_code(outputs: Outputs) -> list[tuple[str, str]]:
    """(path, text) of the held-out files, secrets masked."""
    rows = json.loads((outputs.folder("dataset") / HELD_OUT_CODE).read_text(encoding="utf-8"))
    return [(path, text) for path, text in rows]


MADE_OF = ("ai_forge.data_pipeline.dataset", "ai_forge.data_pipeline.datasets.storage")
DATASET = Stage("dataset", ("mine", "notes"), 16, _inputs, _build, DatasetSummary, MADE_OF)
