"""Blocks to RAFT examples (arXiv 2403.10131): question, oracle, hard distractors, an answer that cites.

The families draft question and answer from the structure of a block; the retriever's own hits for the question that do
not hold the answer become its distractors, so a model trains on the confusions it will meet. A share of the examples
shows only distractors and is answered "not in the context". Every example is verified against its documents, dropped
and counted if it fails. Only the blocks that are passed are ever shown: give a side of a split, get that side's data.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from ai_forge.config.data import SynthesisSettings, ValidatorSettings
from ai_forge.data_pipeline.examples.excerpts import excerpt
from ai_forge.data_pipeline.examples.families import MENTION_TELLS, Draft, Subject, drafts_for, facts_of
from ai_forge.data_pipeline.examples.project_notes import ProjectNotes, read_notes
from ai_forge.data_pipeline.examples.references import mentions_of, references_to
from ai_forge.data_pipeline.examples.scoring import answer_words, held_share
from ai_forge.data_pipeline.examples.splits import check_no_leak, split_by_file
from ai_forge.data_pipeline.examples.verification import verify_example
from ai_forge.data_pipeline.graph.symbols import SymbolGraph, overlap
from ai_forge.data_pipeline.miner import mine_repository
from ai_forge.data_pipeline.schemas import CodeBlock, Document, Fact, RAFTExample, content_id
from ai_forge.data_pipeline.schemas.raft_examples import difficulty_of
from ai_forge.data_pipeline.search.index import Hit, Index
from ai_forge.data_pipeline.source.file_dates import read_dates
from ai_forge.data_pipeline.source.repository import read_repository
from ai_forge.data_pipeline.text.words import approximate_tokens, identifiers, names_in, one_line
from ai_forge.errors import AIForgeError
from ai_forge.prompting.prompt import NOT_IN_CONTEXT

__all__ = [
    "SynthesisResult",
    "generate_chain_of_thought",
    "generate_qa_pairs",
    "retrieve_oracle_and_distractors",
    "synthesize",
]

# Hits of a question among which its distractors are looked for
_POOL = 16
_MAX_WRONG_FACTS = 8
# A document's fence and the like
_TOKENS_AROUND = 8
# Characters: a longer one costs more tokens than it teaches
_MAX_SIGNATURE = 120
_ANNOTATIONS = re.compile(
    r"^(?:\s*@[\w.]+(?:\([^()]*\))?|\s*//.*?(?=\b(?:public|private|protected|static)\b|$))+\s*", re.DOTALL
)
# The validator's own limit: what it would throw away is not made.
_MAX_HELD = ValidatorSettings().max_distractor_relevance
Blocks = tuple[CodeBlock, ...]


@dataclass(frozen=True)
class SynthesisResult:
    """The examples and why others were dropped, counted by reason."""

    examples: list[RAFTExample]
    rejected: Counter[str]


def generate_qa_pairs(
    code_blocks: Sequence[CodeBlock],
    *,
    documents: Sequence[CodeBlock] | None = None,
    settings: SynthesisSettings | None = None,
    index: Index | None = None,
    graph: SymbolGraph | None = None,
    notes: ProjectNotes | None = None,
) -> list[RAFTExample]:
    """Examples about `code_blocks`; see `synthesize`, which also tells what was dropped.

    Without `settings` every block gets its own: what is trained on may be a selection (`synthesis.max_examples`).
    """
    if settings is None:
        settings = SynthesisSettings()
        settings = settings.model_copy(update={"max_examples": max(1, len(code_blocks)) * settings.max_per_block})
    made = synthesize(code_blocks, documents=documents, settings=settings, index=index, graph=graph, notes=notes)
    return made.examples


def synthesize(
    code_blocks: Sequence[CodeBlock],
    *,
    documents: Sequence[CodeBlock] | None = None,
    settings: SynthesisSettings | None = None,
    index: Index | None = None,
    graph: SymbolGraph | None = None,
    notes: ProjectNotes | None = None,
) -> SynthesisResult:
    """Examples about `code_blocks` that show only `documents` (default: the same blocks) and `notes`.

    `index` may cover more than `documents`; hits outside them are passed over. `graph` knows the calls between blocks
    (built with `MiningResult.imports` it has the most edges), `notes` what commits and documentation say of them
    (`read_notes`, and of it the same side). The result depends on the arguments alone.
    """
    settings = settings or SynthesisSettings()
    if not code_blocks:
        return SynthesisResult([], Counter())
    if documents is None:
        documents = code_blocks
    shown = tuple({block.id: block for block in (*documents, *code_blocks)}.values())
    index = index or Index.build(shown, settings.embedder)
    graph = graph or SymbolGraph(shown)
    rejected: Counter[str] = Counter()
    drafts = _drafts(code_blocks, shown, graph, notes or ProjectNotes(), settings, rejected)
    # Those with several oracles first: questions about one block may then share their documents.
    drafts.sort(key=lambda item: -len(item[1].oracles))
    hits = index.search_many([draft.question for _, draft in drafts], _POOL)
    builder = _Builder(shown, graph, settings)
    examples: dict[str, RAFTExample] = {}
    for (block, draft), found in zip(drafts, hits, strict=True):
        built = builder.build(block, draft, found)
        if isinstance(built, str):
            rejected[built] += 1
        elif verify_example(built):
            rejected["not_verified"] += 1
        else:
            examples.setdefault(built.id, built)
    return SynthesisResult(list(examples.values()), rejected)


def retrieve_oracle_and_distractors(
    query: str, all_blocks: Sequence[CodeBlock], oracle_idx: int, k: int = 3, num_distractors: int = 2
) -> tuple[list[CodeBlock], list[CodeBlock]]:
    """(oracles, distractors): `k` blocks where there are enough, `num_distractors` of them to distract.

    The first oracle is `all_blocks[oracle_idx]`; further ones are blocks that it calls. Distractors are the best hits
    for `query` that neither hold an oracle nor lie in one, nor bear its name.
    """
    oracle = all_blocks[oracle_idx]
    callees = [b for b in SymbolGraph(all_blocks).callees(oracle) if not overlap(oracle, b)]
    oracles = [oracle, *callees[: max(0, k - num_distractors - 1)]]
    hits = Index.build(all_blocks).search(query, len(all_blocks))
    candidates = (h.block for h in hits if h.block.name != oracle.name)
    return oracles, list(islice(_disjoint(candidates, oracles), num_distractors))


def generate_chain_of_thought(query: str, oracle_docs: Sequence[CodeBlock], aspect: str = "") -> str:
    """One sentence: what is asked for (`aspect`), its place (each oracle's name and citation), a lone oracle's signature.

    An oracle whose name the query spells comes before the others.
    """
    documents = [Document.from_block(block) for block in oracle_docs]
    return _places(query, documents, aspect, _quotable(oracle_docs[0]) if len(oracle_docs) == 1 else "")


def _quotable(block: CodeBlock) -> str:
    """The block's signature on one line, or nothing where it is long, holds a backtick or a comment."""
    signature = one_line(_ANNOTATIONS.sub("", block.metadata.signature))
    if "//" in signature or "/*" in signature:
        return ""
    return signature if len(signature) <= _MAX_SIGNATURE and "`" not in signature else ""


def _places(query: str, oracle_docs: Sequence[Document], aspect: str, signature: str) -> str:
    """As `generate_chain_of_thought`, of documents that may be no blocks."""
    spelled = set(identifiers(query))
    ordered = sorted(oracle_docs, key=lambda document: document.name.rpartition(".")[2] not in spelled)
    *others, last = (f"`{document.name}` [{document.citation}]" for document in ordered)
    # The aspect comes first, because the answer that follows depends on it: a small model that has just copied a name
    # and a citation no longer looks at the question.
    sentence = f"To see {aspect}, look at " if aspect else "Look at "
    if others:
        sentence += f"{', '.join(others)} and "
    sentence += last
    if signature:
        # Word for word, as RAFT's reasoning quotes its oracle, whatever is asked: it is copied before it is retold, and
        # is right where the retelling is not.
        sentence += f": `{signature}`"
    return f"{sentence}."


def _drafts(
    code_blocks: Sequence[CodeBlock],
    shown: Sequence[CodeBlock],
    graph: SymbolGraph,
    notes: ProjectNotes,
    settings: SynthesisSettings,
    rejected: Counter[str],
) -> list[tuple[CodeBlock, Draft]]:
    """Drafts of all blocks, at most `max_per_block` each; if there are too many, every block keeps its share.

    Which families a block keeps is drawn by content hash, so that all families stay present.
    """
    references = references_to(shown)
    mentions = mentions_of({block.name for block in code_blocks}, shown)
    per_block: list[list[tuple[CodeBlock, Draft]]] = []
    for block in sorted(code_blocks, key=lambda b: content_id(b.id, str(settings.seed))):
        reference = references.get(block.id)
        if reference is None:
            rejected["ambiguous_name"] += 1
            continue
        drafts = drafts_for(Subject(block, reference, graph, settings.seed, notes, mentions), settings.families)
        kept = sorted(drafts, key=lambda d: content_id(block.id, d.family, d.question, str(settings.seed)))
        if len(kept) > settings.max_per_block:
            rejected["over_max_per_block"] += len(kept) - settings.max_per_block
        per_block.append([(block, draft) for draft in kept[: settings.max_per_block]])
    # Every block's first draft, then every block's second: where all are too many, each block keeps its share.
    rounds: list[tuple[CodeBlock, Draft]] = []
    for number in range(settings.max_per_block):
        rounds += [pairs[number] for pairs in per_block if number < len(pairs)]
    if len(rounds) > settings.max_examples:
        rejected["over_max_examples"] = len(rounds) - settings.max_examples
    return rounds[: settings.max_examples]


def _disjoint(candidates: Iterable[CodeBlock], fixed: Sequence[CodeBlock]) -> Iterator[CodeBlock]:
    """Candidates that share no line with a fixed block or with an earlier candidate."""
    kept = list(fixed)
    for block in candidates:
        if not any(overlap(block, other) for other in kept):
            kept.append(block)
            yield block


@dataclass
class _Context:
    """Documents that are shown together, and how many questions are asked about them so far."""

    blocks: tuple[CodeBlock, ...]
    beside: tuple[Document, ...] = ()
    shown_as: Document | None = None
    n_questions: int = 0


class _Builder:
    """Puts documents to drafts. `oracles` are a draft's, or empty where the answer is to be missing."""

    def __init__(self, shown: Sequence[CodeBlock], graph: SymbolGraph, settings: SynthesisSettings) -> None:
        self._settings, self._graph = settings, graph
        self._documents = {block.id: Document.from_block(block) for block in shown}
        self._cost = {b.id: b.metadata.n_tokens + _cost_of_text("", b.citation) for b in shown}
        self._contexts: dict[str, list[_Context]] = {}

    def build(self, subject: CodeBlock, draft: Draft, hits: Sequence[Hit]) -> RAFTExample | str:
        """The example, or the reason why there is none."""
        if any(oracle.id not in self._documents for oracle in draft.oracles):
            return "oracle_not_shown"
        draft = self._shortened(draft)
        draw = _unit_interval(subject.id, "documents", str(self._settings.seed))
        hidden = _unit_interval(draft.question, subject.id, "oracle", str(self._settings.seed))
        without_oracle = draft.may_lack_oracle and hidden < self._settings.no_oracle_share
        wanted = self._n_distractors(draw, len(draft.oracles) + len(draft.beside), without_oracle)
        # Prompts about the same documents begin with the same tokens, which training then computes once.
        oracles = () if without_oracle else draft.oracles
        context = self._shared(draft, oracles, hits, wanted) or self._new(draft, oracles, hits, wanted)
        if isinstance(context, str):
            return context
        context.n_questions += 1
        distractors = [block for block in context.blocks if block not in oracles]
        return self._example(subject, draft, oracles, distractors)

    def _shared(self, draft: Draft, oracles: Blocks, hits: Sequence[Hit], wanted: int) -> _Context | None:
        """Documents that another question already shows, if they suit this one.

        They hold the oracle; or, where it is to be missing, one of the question's best hits.
        """
        nearest = oracles[:1] or [hit.block for hit in hits[:3]]
        for context in chain.from_iterable(self._contexts.get(block.id, ()) for block in nearest):
            others = [block for block in context.blocks if block not in oracles]
            if (
                context.n_questions < self._settings.questions_per_context
                and (context.beside, context.shown_as) == (draft.beside, draft.shown_as)
                and len(others) == len(context.blocks) - len(oracles)
                and bool(others) == bool(wanted)
                and all(self._distracts(block, draft, oracles) for block in others)
            ):
                return context
        return None

    def _new(self, draft: Draft, oracles: Blocks, hits: Sequence[Hit], wanted: int) -> _Context | str:
        """The oracles and the first `wanted` distractors that fit, or the reason why there is none."""
        budget = self._settings.max_context_tokens - self._cost_of_oracles(draft, oracles)
        if budget < 0:
            return "oracle_too_long"
        distractors: list[CodeBlock] = []
        for block in self._candidates(draft, oracles, hits) if wanted else ():
            if self._cost[block.id] <= budget:
                distractors.append(block)
                budget -= self._cost[block.id]
            if len(distractors) == wanted:
                break
        if not oracles and not distractors:
            return "no_distractor"
        context = _Context((*oracles, *distractors), draft.beside, draft.shown_as)
        for block in context.blocks:
            self._contexts.setdefault(block.id, []).append(context)
        return context

    def _cost_of_oracles(self, draft: Draft, oracles: Blocks) -> int:
        """Tokens of what must be shown."""
        cost = sum(self._cost[oracle.id] for oracle in oracles)
        if oracles and draft.shown_as is not None:
            cost += approximate_tokens(draft.shown_as.text) - oracles[0].metadata.n_tokens
        return cost + sum(_cost_of_text(document.text, document.citation) for document in draft.beside)

    def _shortened(self, draft: Draft) -> Draft:
        """The draft with an excerpt of its subject where the whole is over the limit."""
        over = self._cost_of_oracles(draft, draft.oracles) - self._settings.max_context_tokens
        if over <= 0 or draft.shown_as is not None or draft.family in MENTION_TELLS:
            return draft
        subject = draft.oracles[0]
        return replace(draft, shown_as=excerpt(subject, draft.answer, subject.metadata.n_tokens - over))

    def _n_distractors(self, draw: float, n_oracles: int, without_oracle: bool) -> int:
        easy, hard = self._settings.easy_share, self._settings.hard_share
        if without_oracle:
            return 3 if draw < 0.5 else 2  # never none: "not in the context" needs a context to look through
        if n_oracles > 1:
            return 1  # two oracles already make it hard (`difficulty_of`)
        if draw < easy:
            return 0
        if draw < easy + hard:
            return 3 if draw < easy + 0.7 * hard else 4
        medium = 1 - easy - hard
        return 1 if draw <= easy + hard + 0.4 * medium else 2

    def _candidates(self, draft: Draft, oracles: Blocks, hits: Sequence[Hit]) -> Iterator[CodeBlock]:
        """Hits, then siblings, that do not hold the answer."""

        def pool() -> Iterator[CodeBlock]:
            yield from (hit.block for hit in hits)
            yield from self._graph.siblings(draft.oracles[0])[:_POOL]

        return _disjoint((block for block in pool() if self._distracts(block, draft, oracles)), draft.oracles)

    def _distracts(self, block: CodeBlock, draft: Draft, oracles: Blocks) -> bool:
        """Whether `block` may be shown with the draft without holding its answer or bearing its subject's reference."""
        subject = draft.oracles[0]
        if block.id not in self._documents or any(overlap(block, oracle) for oracle in draft.oracles):
            return False
        same_name = block.name == subject.name
        names_file = f"`{subject.path}`" in draft.question
        if same_name and (not oracles or block.path == subject.path or not names_file):
            return False
        mentions = subject.name in names_in(block.source_code)
        if mentions and not same_name and (not oracles or draft.family in MENTION_TELLS):
            return False  # another caller, or a hint at what the answer says is not there
        content = answer_words(draft.answer, subject.name)
        held = held_share(content, subject.name, names_in(block.source_code))
        return held <= _MAX_HELD  # above, an oracle in disguise

    def _example(self, subject: CodeBlock, draft: Draft, oracles: Blocks, distractors: list[CodeBlock]) -> RAFTExample:
        documents: list[Document] = []
        facts: tuple[Fact, ...] = ()
        reasoning, answer = f"None of the documents defines `{subject.name}`.", NOT_IN_CONTEXT
        if oracles:
            documents = [self._documents[block.id] for block in oracles]
            if draft.shown_as is not None:
                documents[0] = draft.shown_as
            documents += draft.beside
            signature = _quotable(subject) if len(documents) == 1 else ""
            reasoning = _places(draft.question, documents, draft.aspect, signature)
            answer, facts = draft.answer, draft.facts
        return RAFTExample(
            question=draft.question,
            oracle_documents=tuple(documents),
            distractor_documents=tuple(self._documents[block.id] for block in distractors),
            reasoning=reasoning,
            final_answer=answer,
            difficulty=difficulty_of(len(documents), len(distractors)),
            family=draft.family,
            subject_id=subject.id,
            subject_path=subject.path,
            facts=facts,
            wrong_facts=self._wrong_facts(draft, distractors),
        )

    def _wrong_facts(self, draft: Draft, distractors: Sequence[CodeBlock]) -> tuple[Fact, ...]:
        """What the distractors hold of the kinds that the answer states, unless an oracle has that word anywhere."""
        known = frozenset[str]().union(*(names_in(block.source_code) for block in draft.oracles))
        kinds = dict.fromkeys([*(fact.kind for fact in draft.facts), *draft.kinds])
        wrong = [
            Fact(kind=kind, value=value)
            for kind in kinds
            for block in distractors
            for value in facts_of(block, kind)
            if kind != "location" and not set(identifiers(value)) & known
        ]
        return tuple(dict.fromkeys(wrong))[:_MAX_WRONG_FACTS]


def _cost_of_text(text: str, citation: str) -> int:
    """Tokens of a document with its name, its citation and its fence."""
    return approximate_tokens(text) + approximate_tokens(citation) + _TOKENS_AROUND


def _unit_interval(*parts: str) -> float:
    """A number in [0, 1) fixed by `parts`."""
    return int(content_id(*parts), 16) / 2**64


def main(arguments: list[str] | None = None) -> int:
    """`python -m ai_forge.data_pipeline.raft_generator PATH`: a side's examples as JSON lines, counts on stderr."""
    parser = argparse.ArgumentParser(prog="python -m ai_forge.data_pipeline.raft_generator", description=main.__doc__)
    parser.add_argument("path", help="folder of a repository")
    parser.add_argument("--side", choices=("train", "valid", "test"), default="train", help="default: train")
    parser.add_argument("--max-examples", type=int, default=SynthesisSettings().max_examples)
    given = parser.parse_args(arguments)
    try:
        repository = read_repository(given.path)
        mined = mine_repository(repository)
        split = split_by_file(mined.blocks, documents=mined.documents, dates=read_dates(repository))
        side = given.side
        subjects = {"train": split.train, "valid": split.valid, "test": split.test}[side]
        shown = {"train": split.train_documents, "valid": split.valid_documents, "test": split.test_documents}[side]
        graph = SymbolGraph(shown, mined.imports)
        notes = read_notes(repository, mined.documents)
        notes = notes.of_side(side, mined.documents, split.side_of_file, split.ends(side))
        settings = SynthesisSettings(max_examples=given.max_examples)
        result = synthesize(subjects, documents=shown, settings=settings, graph=graph, notes=notes)
    except AIForgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for example in result.examples:
        print(example.model_dump_json())
    leaks = len(check_no_leak(result.examples, split)) if given.side == "train" else 0
    counts = {"examples": len(result.examples), "rejected": dict(result.rejected), "leaks": leaks}
    print(json.dumps({**counts, "split": split.summary()}), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
