"""Stage `natural`: questions as people type them, with answers in prose that cite, written by the base itself.

Left in its folder: `train.jsonl` and `valid.jsonl` (RAFT examples), `teacher.safetensors` with what the writer thought at each
token of each answer (only where the writer cuts text as the trained base does), `sample.md` to be read, and the two files that an
attempt that was cut off continues from. Subjects are blocks of the side's own files, pairs of them that call each other across
files, and sections of the documentation; what is shown with a training question comes from no held-out file.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict

from ai_forge.data_pipeline.dataset import Sides
from ai_forge.data_pipeline.datasets.storage import read_examples
from ai_forge.data_pipeline.examples.asked import without_asked
from ai_forge.data_pipeline.schemas import Document, RAFTExample
from ai_forge.data_pipeline.search.context import documents_for
from ai_forge.data_pipeline.secrets.masking import without_secrets
from ai_forge.data_pipeline.teacher.natural import NATURAL_VERSION
from ai_forge.errors import PrerequisiteError
from ai_forge.events import Notice
from ai_forge.json_lines import write_jsonl
from ai_forge.pipeline.stage import Outputs, Stage, StageContext, Summary
from ai_forge.pipeline.stages.dataset import NATURAL_SETTINGS, team_questions
from ai_forge.pipeline.stages.index import IndexSummary
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.workspace import atomic_write, stage_key

if TYPE_CHECKING:
    from ai_forge.data_pipeline.schemas import CodeBlock
    from ai_forge.pipeline.run import Run
    from ai_forge.training.natural import Asked, Subject
    from ai_forge.training.tokens.packing import TeacherTokens

TEACHER = "teacher.safetensors"
VALID_SHARE = 0.1
SEVERAL_SHARE, DOCUMENTATION_SHARE = 0.25, 0.25
SHOWN_IN_SAMPLE = 20


class NaturalSummary(Summary):
    """What was asked, what was kept, and what each check dropped; `content` is the hash of what is trained on."""

    model_config = ConfigDict(frozen=True)

    writer: str
    asked: int
    train: int
    valid: int
    refusals: int
    several: int
    distilled: bool
    dropped: dict[str, int]
    content: str

    def sentence(self) -> str:
        """In a few words."""
        kept = f"{self.train + self.valid} of {self.asked} natural questions answered by {self.writer}"
        return f"{kept}, {self.refusals} honest refusals, {self.several} over several places"


def _inputs(run: Run, outputs: Outputs) -> Mapping[str, Any]:
    synthesis = run.settings.synthesis
    return {
        "dataset": outputs.key("dataset"),
        "index": outputs.summary("index", IndexSummary).content,
        "base": run.base,
        "settings": synthesis.model_dump(include=NATURAL_SETTINGS - {"natural_share"}),
        "shown": [run.settings.judge.retrieved_documents, synthesis.max_context_tokens, synthesis.seed],
        "prompts": NATURAL_VERSION,
    }


def _build(context: StageContext) -> NaturalSummary:
    from ai_forge.training.natural import NaturalWriter
    from ai_forge.training.scribe import Scribe, save_thoughts

    synthesis = context.run.settings.synthesis
    writer, tokenizer, name, same_tokens = writer_of(context, "natural questions and their answers")
    made = NaturalWriter(
        scribe=Scribe(writer, tokenizer, synthesis.seed, synthesis.natural_samples),
        folder=context.folder,
        project=context.run.repository_name,
        find=lambda question, side: _shown(context, question, side),
        far=lambda question, side, files: _shown(context, question, side, files),
        progress=context.report,
    )
    subjects = _subjects(context)
    asked: list[Asked] = []
    n_valid = round(VALID_SHARE * synthesis.natural_questions)
    for side, n in (("valid", n_valid), ("train", synthesis.natural_questions - n_valid)):
        asked += made.ask(subjects[side], n, side)
    answered = made.answer(asked)
    sides, dropped = _checked(context, answered)
    kept = {example.id: (a, text) for a, text in answered if (example := a.example(text))}
    if same_tokens:
        ids = [example.id for example in sides["train"]]
        save_thoughts(context.folder / TEACHER, ids, made.top_tokens([kept[example] for example in ids]))
    for side, examples in sides.items():
        write_jsonl(context.folder / f"{side}.jsonl", examples)
    atomic_write(context.folder / "sample.md", _sample(sides["train"]))
    every = [example for examples in sides.values() for example in examples]
    return NaturalSummary(
        writer=name,
        asked=len(asked),
        train=len(sides["train"]),
        valid=len(sides["valid"]),
        refusals=sum(example.family == "natural_refusal" for example in every),
        several=sum(example.family == "natural_several" for example in every),
        distilled=same_tokens,
        dropped=dict((made.dropped + dropped).most_common()),
        content=stage_key(**{side: [e.id for e in examples] for side, examples in sides.items()}, teacher=same_tokens),
    )


def writer_of(context: StageContext, what: str) -> tuple[Any, ChatTokenizer, str, bool]:
    """The model that writes `what`, its tokenizer and name, and whether its tokens are those of the trained base."""
    from ai_forge.training.backends import load_backend
    from ai_forge.training.bases.resolve import resolve_base

    base, named = context.opened.base, context.run.settings.synthesis.natural_writer
    if named:
        base = resolve_base(named, cache_dir=context.workspace.cache_dir)
    backend = load_backend(context.run.settings.training.backend)
    if backend.name != "torch":
        raise PrerequisiteError(
            f"{what} are written with torch; this run computes with MLX.",
            "add --set training.backend=torch, or leave the setting out that asks for them.",
        )
    tokenizer = ChatTokenizer(base.folder)
    context.emit(Notice("info", f"{base.name} writes: {what}."))
    same_tokens = tokenizer.same_tokens(context.opened.tokenizer)
    return backend.generator.load(base.folder, tokenizer.end_of_turn_id), tokenizer, base.name, same_tokens


def _shown(context: StageContext, question: str, side: str, files: set[str] | None = None) -> tuple[Document, ...]:
    """What is shown with a question: from files that the side may see, and not from `files`."""
    settings, split = context.run.settings, context.opened.split(context.outputs)
    hidden = {*split["test"], *(files or ())}
    if side == "train":
        hidden.update(split["valid"])
    index = context.opened.index(context.outputs)
    k, budget = settings.judge.retrieved_documents, settings.synthesis.max_context_tokens
    return documents_for(question, index, k=k, max_tokens=budget, without=hidden)


# -- what is asked about -------------------------------------------------------------------------------------------------


def _subjects(context: StageContext) -> dict[str, list[Subject]]:
    """By side: single blocks, blocks that call each other across files, sections of the documentation, mixed by `seed`."""
    from ai_forge.training.natural import Subject, is_worth_asking

    split = context.opened.split(context.outputs)
    mined = context.opened.mine()
    entries = context.opened.index(context.outputs).entries
    findable = {entry.id for entry in entries}
    sections = [e.document() for e in entries if e.kind == "documentation" and is_worth_asking(e.document())]
    draw = random.Random(f"{context.run.settings.synthesis.seed}/subjects")
    draw.shuffle(sections)
    n_valid = round(VALID_SHARE * len(sections))
    made: dict[str, list[Subject]] = {}
    for side, own_sections in (("valid", sections[:n_valid]), ("train", sections[n_valid:])):
        files = set(split[side])
        blocks = [b for b in mined.blocks if b.path in files and b.id in findable]
        singles = [(d,) for d in map(Document.from_block, blocks) if is_worth_asking(d)]
        several = [pair for pair in _calling(context, blocks) if all(map(is_worth_asking, pair))]
        draw.shuffle(singles)
        draw.shuffle(several)
        made[side] = _mixed(
            [
                ([Subject(side, documents) for documents in several], SEVERAL_SHARE),
                ([Subject(side, (document,)) for document in own_sections], DOCUMENTATION_SHARE),
                ([Subject(side, documents) for documents in singles], 1 - SEVERAL_SHARE - DOCUMENTATION_SHARE),
            ]
        )
    return made


def _calling(context: StageContext, blocks: Sequence[CodeBlock]) -> list[tuple[Document, Document]]:
    graph = context.opened.graph(blocks)
    pairs = [(block, callee) for block in blocks for callee in graph.callees(block) if callee.path != block.path]
    return [(Document.from_block(first), Document.from_block(second)) for first, second in pairs]


def _mixed(kinds: Sequence[tuple[list[Subject], float]]) -> list[Subject]:
    """The subjects of several kinds in turn, each as often as its share says, while it lasts."""
    unit = min(share for _, share in kinds)
    runs = []
    for subjects, share in kinds:
        n = round(share / unit)
        runs.append([subjects[first : first + n] for first in range(0, len(subjects), n)])
    turns = zip_longest(*runs, fillvalue=())
    return list(chain.from_iterable(chain.from_iterable(turn) for turn in turns))


# -- what is kept --------------------------------------------------------------------------------------------------------


def _checked(context: StageContext, answered: Sequence[tuple[Asked, str]]) -> tuple[Sides, Counter[str]]:
    """The examples by side, without secrets and without what the team asks itself, and what was dropped."""
    sides: Sides = {"train": [], "valid": []}
    for asked, text in answered:
        sides[asked.side].append(asked.example(text))
    dropped: Counter[str] = Counter()
    for side, examples in sides.items():
        clean, leaking = without_secrets(examples)
        sides[side], of_team = without_asked(clean, team_questions(context.outputs))
        dropped += leaking + of_team
    return sides, dropped


def _sample(examples: Sequence[RAFTExample]) -> str:
    parts = ["# Natural questions, the first of those that are trained on\n"]
    for example in examples[:SHOWN_IN_SAMPLE]:
        shown = ", ".join(f"`{document.citation}`" for document in example.shown_documents)
        parts.append(f"## {example.question}\n\nShown: {shown}\n\n{example.final_answer}\n")
    return "\n".join(parts)


def read_teacher(outputs: Outputs) -> dict[str, TeacherTokens]:
    """What the writer thought, by the id of the example."""
    from ai_forge.training.scribe import load_thoughts

    return load_thoughts(outputs.folder("natural") / TEACHER)


def natural_examples(outputs: Outputs, side: str) -> list[RAFTExample]:
    """The natural questions of a side; none where the run has no such stage."""
    if "natural" not in outputs:
        return []
    return read_examples(outputs.folder("natural") / f"{side}.jsonl")


def mixed_with(natural: Sequence[RAFTExample], others: Sequence[RAFTExample], share: float) -> list[RAFTExample]:
    """`natural` with so many of `others`, drawn evenly, that natural ones are `share` of all."""
    if not natural:
        return list(others)
    n = min(len(others), round(len(natural) * (1 - share) / share))
    return [*natural, *random.Random("natural").sample(list(others), n)]


MADE_OF = ("ai_forge.training.natural", "ai_forge.data_pipeline.search.context")
NATURAL = Stage(
    "natural",
    ("dataset", "index"),
    3,
    _inputs,
    _build,
    NaturalSummary,
    MADE_OF,
    resumable=True,
    applies=lambda run: run.settings.synthesis.natural_questions > 0,
)
