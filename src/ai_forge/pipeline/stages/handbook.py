"""The stages of `--recipe handbook` that are its own: its data, its training, its probes, its report.

    .agent/fine-tuning-*  dataset → train → merge → export → evaluate (compliance probes, base against tuned) → report
                                                        └→ parity

Nothing is mined and nothing retrieved. Wherever the model is asked, it is without a system message: the rules are to hold
without one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_forge.data_pipeline.datasets.formats import read_dataset
from ai_forge.data_pipeline.handbook.agent_folder import find_agent_folder
from ai_forge.data_pipeline.handbook.files import read_probes
from ai_forge.data_pipeline.handbook.handbook import COMPANIONS, FINE_TUNING_FILE, HELD_OUT_FILE
from ai_forge.data_pipeline.handbook.tasks import asked, checks_of_every_answer
from ai_forge.data_pipeline.schemas.instructions import AlpacaPair
from ai_forge.errors import InputError
from ai_forge.events import Notice
from ai_forge.pipeline.stage import Outputs, Stage, StageContext, Summary, keyed_by_files
from ai_forge.pipeline.stages.bake import BakeSummary, baked_lessons, held_out_tasks, rules_before
from ai_forge.pipeline.stages.evaluate import ASKED, JudgedSummary, key_of_asked, serve
from ai_forge.pipeline.stages.parity import parity_stage
from ai_forge.pipeline.stages.report import ReportSummary, report_stage, summary_of
from ai_forge.pipeline.stages.train import run_training, training_stage
from ai_forge.prompting.prompt import Message
from ai_forge.serving.runtime import in_parts
from ai_forge.workspace import atomic_write, stage_key

if TYPE_CHECKING:
    from ai_forge.pipeline.run import Run
    from ai_forge.prompting.chat import ChatTokenizer
    from ai_forge.training.record import TrainingResult

ANSWERS = "compliance.json"


class HandbookSummary(Summary):
    """Pairs of the rules that are trained on and of those held out, and probes; `content` is the hash of all."""

    train: int
    valid: int
    probes: int
    content: str

    def sentence(self) -> str:
        """In a few words."""
        return f"{self.train} pairs to train on, {self.valid} of other rules held out, {self.probes} probes"


def _copy_data(context: StageContext) -> HandbookSummary:
    # copied, not read where they lie: they may be edited while the run goes on
    source = find_agent_folder(context.run.repository)
    for name in COMPANIONS:
        if (source / name).is_file():
            atomic_write(context.folder / name, (source / name).read_bytes())
    if not (context.folder / HELD_OUT_FILE).is_file():
        _hold_out(context)
    train, valid = (_pairs(context.folder / name) for name in (FINE_TUNING_FILE, HELD_OUT_FILE))
    probes = read_probes(context.folder)
    content = stage_key(train=[p.id for p in train], valid=[p.id for p in valid], probes=[p.id for p in probes])
    return HandbookSummary(train=len(train), valid=len(valid), probes=len(probes), content=content)


def _hold_out(context: StageContext) -> None:
    """Put one pair in ten aside, for a file that its owner wrote and of which nothing is held out.

    Raises:
        InputError: there is only one pair.
    """
    pairs = _pairs(context.folder / FINE_TUNING_FILE)
    if len(pairs) < 2:
        raise InputError(f"{len(pairs)} pairs are too few to train on and hold one out.", "write more of them.")
    chosen = {pair.id for pair in sorted(pairs, key=lambda pair: pair.id)[: max(1, len(pairs) // 10)]}
    for name, is_held_out in ((FINE_TUNING_FILE, False), (HELD_OUT_FILE, True)):
        side = [pair.alpaca() for pair in pairs if (pair.id in chosen) is is_held_out]
        atomic_write(context.folder / name, json.dumps(side, ensure_ascii=False, indent=2))
    context.emit(Notice("info", f"{len(chosen)} of {len(pairs)} pairs are held out to watch the training."))


def _pairs(path: Path) -> list[AlpacaPair]:
    return [record for record in read_dataset(path, "alpaca").records if isinstance(record, AlpacaPair)]


def _content(outputs: Outputs) -> str:
    return outputs.summary("dataset", HandbookSummary).content


def _trained_on(outputs: Outputs) -> Any:
    if "bake" not in outputs:
        return _content(outputs)
    return [_content(outputs), outputs.summary("bake", BakeSummary).content]


def _fit(context: StageContext) -> TrainingResult:
    from ai_forge.training.handbook import HandbookTrainer

    data = context.outputs.folder("dataset")
    sides = [_pairs(data / name) for name in (FINE_TUNING_FILE, HELD_OUT_FILE)]
    result: TrainingResult = run_training(
        context, HandbookTrainer, "train_pairs", *sides, baked_lessons(context.outputs)
    )
    return result


# -- measurements -------------------------------------------------------------------------------------------------------


class ComplianceSummary(JudgedSummary):
    """How many probes base and tuned model pass, and on how many tasks they and the base that is told the rules keep these."""

    probes: int
    kept_by_base: int
    kept_by_tuned: int
    tasks: int = 0
    tasks_kept_by_base_told_tuned: tuple[int, ...] = ()

    def sentence(self) -> str:
        """In a few words."""
        probes = f"{self.probes} probes, kept by base: {self.kept_by_base}, kept by tuned: {self.kept_by_tuned}"
        if not self.tasks:
            return probes
        base, told, tuned = self.tasks_kept_by_base_told_tuned
        return f"{probes}; of {self.tasks} tasks by base: {base}, with the rules before it: {told}, tuned: {tuned}"


def _evaluate_inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
    longest = run.settings.judge.max_new_tokens
    return {
        "recipe": run.recipe,
        **key_of_asked(run, outputs),
        "data": _trained_on(outputs),  # of baked rules also the tasks that are held out
        "longest": longest,
    }


def _evaluate(context: StageContext) -> ComplianceSummary:
    from ai_forge.judge.compliance import WHOSE, TaskAnswers, ask_both
    from ai_forge.prompting.chat import ChatTokenizer

    data = context.outputs.folder("dataset")
    probes = read_probes(data)
    if not probes:
        text = "No probes: none of the rules can be checked by a machine, so nothing is judged. Write fine-tuning-probes.jsonl."
        context.emit(Notice("warning", text))
    base = context.opened.base
    # each is asked in the form that it knows: the base was never taught Alpaca's, unless it has no form of its own
    untrained = ChatTokenizer(base.folder, "chat" if base.chat_template else "alpaca")
    tuned = context.opened.tokenizer
    made = ask_both(
        probes,
        lambda prompts: _answers(context, False, untrained, map(asked, prompts)),
        lambda prompts: _answers(context, True, tuned, map(asked, prompts)),
    )
    if tasks := held_out_tasks(context.outputs):
        plain, told = [asked(task) for task in tasks], rules_before(context.outputs, tasks)
        base_answers, told_answers = (_answers(context, False, untrained, chats) for chats in (plain, told))
        rows = zip(tasks, base_answers, told_answers, _answers(context, True, tuned, plain), strict=True)
        made = made.model_copy(
            update={
                "tasks": tuple(TaskAnswers(task=t, base=b, told=c, tuned=d) for t, b, c, d in rows),
                "checks": tuple(checks_of_every_answer(probes)),
            }
        )
    atomic_write(context.folder / ANSWERS, made.model_dump_json(indent=1))
    return ComplianceSummary(
        probes=len(made.answers),
        kept_by_base=sum(answer.base_passes for answer in made.answers),
        kept_by_tuned=sum(answer.tuned_passes for answer in made.answers),
        tasks=len(made.tasks),
        tasks_kept_by_base_told_tuned=tuple(made.kept_on_tasks(who) for who in WHOSE),
        first_question=probes[0].prompt if probes else _pairs(data / HELD_OUT_FILE)[0].instruction,
    )


def _answers(context: StageContext, tuned: bool, tokenizer: ChatTokenizer, chats: Iterable[list[Message]]) -> list[str]:
    """Greedy answers of the exported file of the tuned model or the base."""
    encoded = [tokenizer.encode_prompt(chat) for chat in chats]
    if not encoded:
        return []
    longest, answers = context.run.settings.judge.max_new_tokens, list[str]()
    with serve(context, tuned, max(map(len, encoded)) + longest) as server:
        for part in in_parts(server, encoded, longest):
            answers += part
            context.report(len(answers), len(encoded), "tuned" if tuned else "base")
    return answers


def _chats(context: StageContext) -> list[list[Message]]:
    """Probes, then held-out instructions."""
    data = context.outputs.folder("dataset")
    prompts = [probe.prompt for probe in read_probes(data)] + [
        pair.instruction for pair in _pairs(data / HELD_OUT_FILE)
    ]
    return [asked(prompt) for prompt in prompts[: context.run.settings.export.parity_prompts]]


def _report(context: StageContext) -> ReportSummary:
    from ai_forge.judge.compliance import Compliance, compliance_report, judge_compliance
    from ai_forge.training.record import TrainingRecord

    outputs, base = context.outputs, context.opened.base
    compliance = outputs.read("evaluate", ANSWERS, Compliance)
    verdict = judge_compliance(compliance, context.run.settings.judge)
    pairs = outputs.summary("dataset", HandbookSummary)
    training = TrainingRecord.read(outputs.folder("train"))
    losses = f"{training.trained_first_loss:.3f} → {training.trained_last_loss:.3f} nats per token"
    figures = {
        "base": f"{base.name} ({base.origin.description})",
        "pairs": f"{pairs.train} trained on, {pairs.valid} of other rules held out",
        "loss on the pairs": losses,
        "steps": str(training.schedule.n_steps),
    }
    atomic_write(context.folder / "compliance.md", compliance_report(verdict, compliance, figures))
    return summary_of(verdict, "compliance.md")


READERS, JUDGE = ("ai_forge.data_pipeline.datasets.formats",), ("ai_forge.judge.compliance",)
HANDBOOK_DATASET = Stage("dataset", (), 2, keyed_by_files, _copy_data, HandbookSummary, READERS)
HANDBOOK_TRAIN = training_stage(_fit, _trained_on, ("ai_forge.training.handbook",), needs=("dataset", "bake"))
HANDBOOK_EVALUATE = Stage(
    "evaluate", (*ASKED, "dataset", "bake"), 3, _evaluate_inputs, _evaluate, ComplianceSummary, JUDGE
)
HANDBOOK_PARITY = parity_stage(_chats, lambda run, outputs: _content(outputs), ("dataset",))
HANDBOOK_REPORT = report_stage(_report, JUDGE)
