"""The stages in order: a repository in, a judged and exported model out. CLI, service and guardian call this one.

Each stage has a key, the hash of what goes into it, and a folder in the workspace's cache. A stage whose folder is whole
is not run again; one that was cut off is run again, or continued where it can be (training). So the same call after a
crash, a Ctrl-C or a small change does only what is left to do.

    base ─┐
    mine → dataset → train → merge → evaluate
              │                └──→ export → parity → report
              └→ index
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_forge.config import FineTuneConfig, LoadedSettings
from ai_forge.data_pipeline.context import documents_for
from ai_forge.data_pipeline.file_dates import read_dates
from ai_forge.data_pipeline.filters import without_near_duplicates
from ai_forge.data_pipeline.miner import MiningResult, mine_repository
from ai_forge.data_pipeline.project_words import ProjectWords, read_words
from ai_forge.data_pipeline.prompt import SYSTEM_PROMPT, Message, citations_in, messages_for
from ai_forge.data_pipeline.raft_generator import synthesize
from ai_forge.data_pipeline.repository import Repository, SourceFile, read_repository
from ai_forge.data_pipeline.retrieval import Index
from ai_forge.data_pipeline.schemas import CodeBlock, Document, RAFTExample
from ai_forge.data_pipeline.secrets import scrub, without_secrets
from ai_forge.data_pipeline.splits import check_no_leak, split_by_file
from ai_forge.data_pipeline.storage import read_examples, write_dataset
from ai_forge.data_pipeline.symbols import SymbolGraph
from ai_forge.data_pipeline.teacher import AnswerCache, estimate, teach
from ai_forge.data_pipeline.teacher_http import resolve_teacher
from ai_forge.data_pipeline.teacher_prompt import PROMPT_VERSION
from ai_forge.data_pipeline.validator import filter_dataset, generate_quality_report
from ai_forge.errors import InputError, RefusedError
from ai_forge.events import Notice, Sink, StageFinished, StageProgress, StageStarted
from ai_forge.file_cache import FileCache
from ai_forge.training.bases import Base, as_json, resolve_base
from ai_forge.workspace import Workspace, atomic_write, require_disk, stage_key

if TYPE_CHECKING:
    from ai_forge.conductor import Activation, Deployed, Deployment, Runtime
    from ai_forge.judge.evaluator import Contender, Evaluation
    from ai_forge.judge.parity import Parity
    from ai_forge.judge.verdict import Verdict
    from ai_forge.training.chat import ChatTokenizer
    from ai_forge.training.forge import TrainingResult

VERSIONS = {
    "mine": 3,
    "dataset": 9,
    "index": 2,
    "train": 3,
    "merge": 1,
    "evaluate": 2,
    "export": 1,
    "parity": 3,
    "handbook": 1,
    "compliance": 1,
}
"""Raised when a stage's code changes what it makes from the same input."""
SIDES = ("train", "valid", "test")
SPREAD = {"nproc", "gradient_checkpointing", "sharded"}
"""Settings of a training that change nothing but its speed (and rounding)."""


@dataclass(frozen=True)
class Stage:
    """A finished stage: where its output lies, and what it counted."""

    name: str
    key: str
    folder: Path
    counts: dict[str, Any]


class Reply:
    """An answer on its way: iterate over the pieces once, then read `text` and `cited`."""

    def __init__(
        self, model: str, kind: str, documents: Sequence[Document], runtime: Runtime, messages: Sequence[Message]
    ) -> None:
        self.model = model
        self.runtime_kind = kind
        self.documents = tuple(documents)
        self.text = ""
        self._runtime = runtime
        self._messages = messages

    def __iter__(self) -> Iterator[str]:
        try:
            for piece in self._runtime.chat(self.model, self._messages):
                self.text += piece
                yield piece
        finally:
            self._runtime.close()

    @property
    def cited(self) -> list[Document]:
        """The shown documents that the answer cites."""
        named = citations_in(self.text)
        return [document for document in self.documents if document.citation in named]

    @property
    def invented(self) -> list[str]:
        """Citations of the answer that name nothing it was shown."""
        shown = {document.citation for document in self.documents}
        return [citation for citation in citations_in(self.text) if citation not in shown]


def slug(name: str) -> str:
    """A repository's name as a model name that every runtime accepts.

    >>> slug("My Repo (v2)")
    'my-repo-v2'
    """
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "repository"


class Pipeline:
    """One repository, one resolved configuration. Stages are properties: asking for one runs what it needs.

    Args:
        repository: a folder, a git repository or not.
        loaded: the settings with their sources.
        workspace: where everything is kept.
        emit: hears the events.
    """

    system_prompt = SYSTEM_PROMPT

    def __init__(self, repository: Path, loaded: LoadedSettings, workspace: Workspace, emit: Sink) -> None:
        self.path = repository
        self.loaded = loaded
        self.settings = loaded.settings
        self.workspace = workspace
        self.emit = emit

    # -- running a stage ----------------------------------------------------------------------------------------

    @contextmanager
    def _told(self, stage: str) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Tell that `stage` starts and ends; the yielded function takes its counts."""
        began = time.monotonic()
        told: dict[str, Any] = {}
        self.emit(StageStarted(stage))
        yield told.update
        self.emit(StageFinished(stage, time.monotonic() - began, bool(told.pop("cached", False)), told))

    def _stage(self, name: str, build: Callable[[Path], dict[str, Any]], /, **inputs: Any) -> Stage:
        """The output of a stage: from the cache where it is whole, else built into a folder that appears when it is."""
        key = stage_key(stage=name, version=VERSIONS[name], **inputs)
        with self._told(name) as tell:
            manifest = self.workspace.finished(name, key)
            if manifest is None:
                with self.workspace.building(name, key) as (folder, counts):
                    counts.update(build(folder))
                manifest = {"counts": counts}
                tell(counts)
            else:
                tell({**manifest["counts"], "cached": True})
        return Stage(name, key, self.workspace.stage_folder(name, key), manifest["counts"])

    def _progress(self, stage: str) -> Callable[[int, int], None]:
        return lambda done, total: self.emit(StageProgress(stage, done, total))

    # -- inputs -------------------------------------------------------------------------------------------------

    @cached_property
    def base(self) -> Base:
        """The base model, converted into the cache if it has to be."""
        with self._told("base") as tell:
            base = resolve_base(self.settings.training.base_model, cache_dir=self.workspace.cache_dir)
            tell({"name": base.name, "parameters": base.n_parameters, "lossy": base.origin.lossy})
        return base

    @cached_property
    def repository(self) -> Repository:
        """The repository's files as they are now."""
        return read_repository(self.path, max_file_bytes=self.settings.miner.max_file_bytes)

    @cached_property
    def model_name(self) -> str:
        """What the deployed model is called."""
        return slug(self.repository.name)

    @cached_property
    def run_id(self) -> str:
        """Twelve hex digits: the same repository, base and settings make the same run, which is then continued."""
        where = {
            "kind",
            "ollama_host",
            "keep_versions",
            "deploy",
        }  # how it answers makes another version, where does not
        settings = self.settings.model_dump(exclude={"runtime": where, "training": SPREAD})
        return stage_key(files=self._snapshot, base=self.base.fingerprint, settings=settings)[:12]

    @cached_property
    def _snapshot(self) -> str:
        files = [(file.path, file.blob_id, file.folder_licence) for file in self.repository.files]
        return stage_key(files=files, licence=self.repository.licence)

    # -- data ---------------------------------------------------------------------------------------------------

    @cached_property
    def mine(self) -> Stage:
        """What was counted of the repository's blocks; the blocks are kept by file, see `_mining`."""
        settings = self.settings.miner.model_dump()
        return self._stage("mine", lambda _: self._mining.summary(), files=self._snapshot, settings=settings)

    @cached_property
    def _mining(self) -> MiningResult:
        """What was mined. Files that were mined before, in whatever state of the repository, are not mined again."""
        place = stage_key(root=str(self.repository.root))
        cache = FileCache(self.workspace.cache_dir / "files" / f"{place}.db")
        return mine_repository(self.repository, self.settings.miner, progress=self._progress("mine"), cache=cache)

    @cached_property
    def mined(self) -> MiningResult:
        """The content of `mine`.

        Raises:
            InputError: nothing in the repository can be asked about.
        """
        self.mine  # noqa: B018 - the stage first: it tells of its progress
        result = self._mining
        if not result.blocks:
            reasons = ", ".join(f"{reason}: {n}" for reason, n in (result.rejected + result.skipped).most_common(5))
            raise InputError(
                f"Nothing in {self.path} can be asked about: {len(result.documents)} blocks were found in "
                f"{result.n_files} files, none passes the filters ({reasons or 'no definitions'}).",
                "add --set miner.require_docstring=false, or name a repository with more code."
                if result.rejected["no_docstring"]
                else "name a repository with more code.",
            )
        if result.advice:
            self.emit(Notice("warning", result.advice))
        return result

    @cached_property
    def words(self) -> ProjectWords:
        """What commits and documentation say about the blocks; nothing where no question asks for it."""
        families = set(self.settings.synthesis.families)
        if families and families.isdisjoint({"why", "fits_together"}):
            return ProjectWords()
        return read_words(self.repository, self.mined.documents)

    @cached_property
    def _dates(self) -> dict[str, int]:
        """When each file was written; nothing where the split does not ask."""
        return read_dates(self.repository) if self.settings.split.by != "file" else {}

    @cached_property
    def dataset(self) -> Stage:
        """Train, valid and test examples, split before synthesis, validated, with a quality report."""
        settings = self.settings

        def build(folder: Path) -> dict[str, Any]:
            subjects, rejected = without_near_duplicates(self.mined.blocks, settings.miner.near_duplicate)
            split = split_by_file(subjects, settings.split, documents=self.mined.documents, dates=self._dates)
            if split.because:
                self.emit(Notice("info", f"Held out {split.rule}."))
            kept: dict[str, list[RAFTExample]] = {}
            for done, side in enumerate(SIDES):
                self.emit(StageProgress("dataset", done, len(SIDES), side))
                shown = getattr(split, f"{side}_documents")
                graph = self._graph(shown)
                found = Index.build(shown, self._embedder(), graph)
                words = self.words.of_side(side, self.mined.documents, split.side_of_file, split.ends(side))
                made = synthesize(
                    getattr(split, side),
                    documents=shown,
                    settings=settings.synthesis,
                    index=found,
                    graph=graph,
                    words=words,
                )
                good, dropped = filter_dataset(made.examples, settings.validator)
                kept[side], leaking = without_secrets(good)
                rejected += made.rejected + dropped + leaking
            counts: dict[str, Any] = {}
            if settings.synthesis.teacher:
                kept, spoilt, counts["teacher"] = self._taught(kept)
                rejected += spoilt
            leaks = check_no_leak(kept["train"], split)
            if leaks:
                raise RefusedError(
                    f"{len(leaks)} training examples show held-out code, the first {leaks[0].citation} ({leaks[0].reason}).",
                    "this is a bug of the split; please report it with the repository's structure.",
                )
            files = {side: sorted(p for p, s in split.side_of_file.items() if s == side) for side in SIDES}
            atomic_write(folder / "split.json", json.dumps(files, indent=1))
            write_dataset(
                folder,
                kept,
                RAFTExample,
                provenance={
                    "repository": self.repository.name,
                    "commit": self.repository.commit,
                    "mined": self.mine.key,
                },
                settings={
                    name: getattr(settings, name).model_dump() for name in ("miner", "split", "synthesis", "validator")
                },
            )
            atomic_write(folder / "quality.md", generate_quality_report([e for side in SIDES for e in kept[side]]))
            counts |= {"rejected": dict(rejected), "split": split.summary()}
            return {**{side: len(kept[side]) for side in SIDES}, **counts}

        return self._stage(
            "dataset",
            build,
            mine=self.mine.key,
            words=self.words.fingerprint,
            split=settings.split.model_dump(),
            dates=self._dates,
            synthesis=settings.synthesis.model_dump(),
            validator=settings.validator.model_dump(),
            **({"prompt": PROMPT_VERSION} if settings.synthesis.teacher else {}),
        )

    def _taught(
        self, sides: dict[str, list[RAFTExample]]
    ) -> tuple[dict[str, list[RAFTExample]], Counter[str], dict[str, Any]]:
        """(the sides in the teacher's words, what those made a duplicate of, what it cost).

        All sides alike: a verdict on questions that are worded otherwise than the training's would measure the wording.
        """
        from ai_forge.conductor.ollama_http import ollama_url

        settings, validator = self.settings.synthesis, self.settings.validator
        teacher = resolve_teacher(settings.teacher, ollama_url(self.settings.runtime.ollama_host))
        if not teacher.is_here:
            self.emit(Notice("warning", f"The shown code and its questions are sent to {teacher.url}."))
        examples = [example for side in SIDES for example in sides[side]]
        key = stage_key(teacher=teacher.name, prompt=PROMPT_VERSION)
        with closing(AnswerCache(self.workspace.cache_dir / "teacher" / f"{key}.jsonl")) as cache:
            self.emit(Notice("info", f"{teacher.name}: {estimate(examples, settings, cache)}"))
            progress = self._progress("dataset")
            teaching = teach(examples, teacher, settings, cache, validator=validator, progress=progress)
        self.emit(Notice("info", f"{teacher.name}: {teaching}"))
        said = iter(teaching.examples)
        taught: dict[str, list[RAFTExample]] = {}
        rejected: Counter[str] = Counter()
        for side in SIDES:
            good, dropped = filter_dataset([next(said) for _ in sides[side]], validator)
            taught[side], leaking = without_secrets(good)
            rejected += dropped + leaking
        return taught, rejected, {"name": teacher.name, **teaching.summary()}

    def examples(self, side: str) -> list[RAFTExample]:
        """The examples of a side of the dataset."""
        return read_examples(self.dataset.folder / f"{side}.jsonl")

    @cached_property
    def index(self) -> Stage:
        """The retriever over the whole repository."""
        embedder = self._embedder()

        def build(folder: Path) -> dict[str, Any]:
            index = Index.build(self.mined.documents, embedder, self._graph(self.mined.documents))
            index.save(folder)
            return {"blocks": len(index.blocks)}

        return self._stage("index", build, mine=self.mine.key, embedder=embedder)

    def _graph(self, blocks: Sequence[CodeBlock]) -> SymbolGraph:
        """Who calls whom among `blocks`, which are of this repository."""
        sources = {file.path: file.content for file in self.repository.files}
        return SymbolGraph(blocks, self.mined.imports, sources)

    def _embedder(self) -> str:
        """The embedder's name, with the address for one of Ollama's."""
        from ai_forge.conductor.ollama_http import ollama_url

        name = self.settings.synthesis.embedder
        is_bare = name.startswith("ollama:") and "@" not in name
        return f"{name}@{ollama_url(self.settings.runtime.ollama_host)}" if is_bare else name

    def retrieve(self, index: Index, question: str) -> tuple[Document, ...]:
        """The documents that are shown with a question."""
        k, budget = self.settings.judge.retrieved_documents, self.settings.synthesis.max_context_tokens
        return documents_for(question, index, k=k, max_tokens=budget)

    # -- model --------------------------------------------------------------------------------------------------

    @cached_property
    def train(self) -> Stage:
        """The adapter; continues a training that was cut off."""
        from ai_forge.training.backends import backend_name

        config = self.settings.training
        self.require_template()
        dataset, base = self.dataset, self.base
        made_by = {"version": VERSIONS["train"], "backend": backend_name(config.backend)}
        key = stage_key(
            stage="train", **made_by, base=base.fingerprint, data=dataset.key, config=config.model_dump(exclude=SPREAD)
        )
        with self._told("train") as tell:
            manifest = self.workspace.finished("train", key)
            if manifest is None:
                self._require_room(base, config)
                result = self.fit(self.workspace.work_folder("train", key))
                counts = {k: v for k, v in asdict(result).items() if k != "folder"}
                self.workspace.promote("train", key, counts)
                tell(counts)
            else:
                counts = manifest["counts"]
                tell({**counts, "cached": True})
        return Stage("train", key, self.workspace.stage_folder("train", key), counts)

    def fit(self, folder: Path) -> TrainingResult:
        """Train in `folder`, or continue there."""
        from ai_forge.training.forge import FineTuneTrainer
        from ai_forge.training.launcher import run_trainer

        data, parts = (self.examples("train"), self.examples("valid")), self._trainer_parts(folder)
        result: TrainingResult = run_trainer(
            FineTuneTrainer, self.settings.training, "train", *data, emit=self.emit, **parts
        )
        return result

    def _trainer_parts(self, folder: Path) -> dict[str, Any]:
        return {"base": self.base, "folder": folder, "workspace": self.workspace}

    def require_template(self) -> None:
        """Questions about code are asked through the base's chat template, base and tuned model alike.

        Raises:
            InputError: another one was asked for.
        """
        if self.settings.training.prompt_template != "chat":
            raise InputError(
                "training.prompt_template alpaca is for handbooks; questions about code go through the base's chat template.",
                "add --recipe handbook, or leave the setting out.",
            )

    @cached_property
    def tokenizer(self) -> ChatTokenizer:
        """The tuned model's tokenizer, with the template that it is asked through."""
        from ai_forge.training.chat import ChatTokenizer

        return ChatTokenizer(self.base.folder, self.settings.training.prompt_template)

    def plan(self) -> dict[str, Any]:
        """Counts, tokens, memory and time of a training, measured on the machine, without training."""
        from ai_forge.training.forge import FineTuneTrainer
        from ai_forge.training.launcher import run_trainer

        config = self.settings.training
        self._require_room(self.base, config)
        data, parts = (self.examples("train"), self.examples("valid")), self._trainer_parts(self.run_folder)
        with self._told("plan") as tell:
            plan: dict[str, Any] = run_trainer(FineTuneTrainer, config, "plan", *data, emit=self.emit, **parts)
            tell({"steps": plan["n_steps"]})
        return plan

    def _require_room(self, base: Base, config: FineTuneConfig) -> None:
        """Find out before training starts that disk or memory will not do."""
        from ai_forge.training.backends import load_backend
        from ai_forge.training.launcher import n_processes
        from ai_forge.training.memory import require_memory

        require_disk(self.workspace.root, 5 * 2 * base.n_parameters, "Training, merging and exporting")

        backend, (n, n_here) = load_backend(config.backend), n_processes(config)
        config = config.model_copy(update={"nproc": n})

        def estimate(changed: FineTuneConfig) -> dict[str, int]:
            return backend.memory_needed(base.folder, changed)

        require_memory(estimate(config), backend.free_bytes(n_here), config, estimate)

    @cached_property
    def merge(self) -> Stage:
        """The tuned model as a Hugging Face folder: the adapter merged onto the residual it was trained on."""
        from ai_forge.judge.merge import merge_adapters_to_base

        train = self.train

        def build(folder: Path) -> dict[str, Any]:
            merged = merge_adapters_to_base(self.base, train.folder, folder / "model", progress=self._progress("merge"))
            return {"bytes": sum(f.stat().st_size for f in merged.iterdir())}

        return self._stage("merge", build, train=train.key, base=self.base.fingerprint)

    @property
    def tuned_folder(self) -> Path:
        """The merged model."""
        return self.merge.folder / "model"

    # -- measurements -------------------------------------------------------------------------------------------

    @cached_property
    def held_out_questions(self) -> list[RAFTExample]:
        """The test questions that the judge asks: those whose oracles retrieval could find, spread over files and families.

        Commits, sections of the documentation and functions with a gap are in no index, so they are not asked about.
        """
        settings = self.settings.judge
        found = {block.id for block in self.mined.documents}
        examples = self.examples("test")
        answerable = [e for e in examples if e.oracle_documents and {d.block_id for d in e.oracle_documents} <= found]
        return spread(answerable, settings.n_questions, settings.seed)

    @cached_property
    def evaluate(self) -> Stage:
        """Base and tuned model on held-out questions and code: `evaluation.json`."""
        from ai_forge.judge.evaluator import CONTENDERS

        return self.evaluate_contenders(CONTENDERS)

    def evaluate_contenders(self, contenders: Sequence[Contender]) -> Stage:
        """As `evaluate`, where only `contenders` answer."""
        settings = self.settings.judge
        merge, dataset = self.merge, self.dataset
        retriever_key = self.index.key

        def build(folder: Path) -> dict[str, Any]:
            from ai_forge.judge.evaluator import Evaluator, HeldOut
            from ai_forge.training.backends import load_backend

            generator, tokenizer = load_backend(self.settings.training.backend).generator, self.tokenizer
            index = Index.load(self.index.folder)
            evaluator = Evaluator(
                lambda tuned: generator.load(
                    self.tuned_folder if tuned else self.base.folder, tokenizer.end_of_turn_id
                ),
                tokenizer,
                lambda question: self.retrieve(index, question),
                settings,
                self.emit,
            )
            held_out = HeldOut(
                questions=self.held_out_questions,
                worked_examples=self._worked_examples(),
                code=self._held_out_code(),
            )
            evaluation = evaluator.evaluate(held_out, contenders)
            atomic_write(folder / "evaluation.json", evaluation.model_dump_json(indent=1))
            return {"questions": len(held_out.questions), "code_files": len(held_out.code)}

        return self._stage(
            "evaluate",
            build,
            merge=merge.key,
            data=dataset.key,
            index=retriever_key,
            settings=settings.model_dump(exclude={"confidence", "forgetting_budget", "batch_tokens"}),
            budget=self.settings.synthesis.max_context_tokens,
            contenders=[contender.name for contender in contenders],
        )

    def _worked_examples(self) -> list[RAFTExample]:
        """Training examples that the base is shown: from the shortest third, so that they leave room for the question."""
        usable = [e for e in self.examples("train") if e.oracle_documents and e.distractor_documents]
        usable.sort(key=lambda e: sum(len(d.text) for d in e.shown_documents))
        return spread(
            usable[: max(1, len(usable) // 3)], self.settings.judge.n_worked_examples, self.settings.judge.seed
        )

    def _held_out_code(self) -> list[tuple[str, str]]:
        """(path, text) of test files, whole ones while they fit into `judge.code_bytes`, the last one cut at a line."""
        files = set(json.loads((self.dataset.folder / "split.json").read_text(encoding="utf-8"))["test"])
        chosen: list[tuple[str, str]] = []
        left = self.settings.judge.code_bytes
        for file in self.repository.files:
            if file.path not in files or left <= 0:
                continue
            share = min(left, max(2000, self.settings.judge.code_bytes // 8))
            text = self._clean(file)[:share].decode("utf-8", errors="ignore").rpartition("\n")[0]
            if text.strip():
                chosen.append((file.path, text))
                left -= len(text.encode())
        return chosen

    def _clean(self, file: SourceFile) -> bytes:
        """A file's bytes without its secrets."""
        return scrub(file.content, self.settings.miner.secret_placeholder).content

    # -- files for the runtimes ---------------------------------------------------------------------------------

    @cached_property
    def export(self) -> Stage:
        """`model.f16.gguf`, and the deployed type beside it."""
        from ai_forge.judge.exporter import convert_to_gguf

        kinds = list(dict.fromkeys(("f16", self.settings.export.quantization)))

        def build(folder: Path) -> dict[str, Any]:
            sizes = {}
            for place, kind in enumerate(kinds):
                say = lambda done, total, place=place: self.emit(  # noqa: E731
                    StageProgress("export", place * total + done, len(kinds) * total, kinds[place])
                )
                path = folder / f"model.{kind}.gguf"
                convert_to_gguf(self.tuned_folder, path, kind, name=self.model_name, progress=say)
                sizes[kind] = path.stat().st_size
            return {"bytes": sizes}

        return self._stage("export", build, merge=self.merge.key, kinds=kinds, called=self.model_name)

    @property
    def gguf(self) -> Path:
        """The file that is deployed."""
        return self.export.folder / f"model.{self.settings.export.quantization}.gguf"

    @cached_property
    def parity(self) -> Stage:
        """Trainer against GGUF on held-out prompts: `parity.json`."""
        settings, export, train = self.settings.export, self.export, self.train

        def build(folder: Path) -> dict[str, Any]:
            from ai_forge.conductor import LlamaServer
            from ai_forge.judge.parity import Files, compare
            from ai_forge.training.backends import load_backend

            backend, tokenizer = load_backend(self.settings.training.backend), self.tokenizer
            chats = self.parity_chats()
            longest = max(len(tokenizer.encode_prompt(chat)) for chat in chats) + settings.parity_tokens
            trainee = backend.trainee.from_adapter(self.base.folder, train.folder, self.settings.training, exact=True)
            trainer = backend.generator(trainee.model, tokenizer.end_of_turn_id)
            with LlamaServer(export.folder / "model.f16.gguf", longest + 8) as f16:
                if settings.quantization == "f16":
                    files = Files(f16, f16, "f16")
                    result = compare(trainer, files, tokenizer, chats, settings.parity_tokens, self._progress("parity"))
                else:
                    with LlamaServer(self.gguf, longest + 8) as deployed:
                        files = Files(f16, deployed, settings.quantization)
                        result = compare(
                            trainer, files, tokenizer, chats, settings.parity_tokens, self._progress("parity")
                        )
            atomic_write(folder / "parity.json", result.model_dump_json(indent=1))
            return result.rows

        return self._stage(
            "parity", build, export=export.key, train=train.key, data=self.dataset.key, settings=settings.model_dump()
        )

    def parity_chats(self) -> list[list[Message]]:
        """The chats that trainer and runtimes are compared on: held-out questions, each with one document."""
        index = Index.load(self.index.folder)
        questions = [example.question for example in self.held_out_questions[: self.settings.export.parity_prompts]]
        budget = self.settings.synthesis.max_context_tokens // 2
        return [messages_for(q, documents_for(q, index, k=1, max_tokens=budget)) for q in questions]

    @cached_property
    def parity_result(self) -> Parity:
        """The content of `parity`."""
        from ai_forge.judge.parity import Parity

        return Parity.model_validate_json((self.parity.folder / "parity.json").read_text(encoding="utf-8"))

    # -- conclusions --------------------------------------------------------------------------------------------

    @cached_property
    def evaluation(self) -> Evaluation:
        """The content of `evaluate`."""
        from ai_forge.judge.evaluator import Evaluation

        return Evaluation.model_validate_json((self.evaluate.folder / "evaluation.json").read_text(encoding="utf-8"))

    @cached_property
    def verdict(self) -> Verdict:
        """Did it help?"""
        from ai_forge.judge.verdict import judge

        return judge(self.evaluation, self.settings.judge)

    @cached_property
    def report(self) -> Path:
        """`report.html` in the run's folder (`report.md` beside it)."""
        from ai_forge.judge.report import ReportData, write_report

        folder = self.run_folder
        training = json.loads((self.train.folder / "training.json").read_text(encoding="utf-8"))
        origin = self.base.origin
        mined, data = self.mine.counts, self.dataset.counts
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        values = ReportData(
            repository=self.repository.name,
            commit=self.repository.commit,
            run_id=self.run_id,
            created=record["created"],
            base={
                "name": self.base.name,
                "description": origin.description,
                "lossy": origin.lossy,
                "quantisation": origin.quantisation,
            },
            counts=[
                ("mined", f"{mined['documents']} blocks in {mined['files']} files, {mined['subjects']} asked about"),
                ("split", data["split"]["rule"]),
                ("examples", f"{data['train']} to train on, {data['valid']} to stop on, {data['test']} held out"),
                ("left out", ", ".join(f"{reason} {n}" for reason, n in data["rejected"].items()) or "none"),
            ],
            training=training,
            evaluation=self.evaluation,
            verdict=self.verdict,
            parity=self.parity_result.rows,
            unknowns=self._unknowns(training),
        )
        with self._told("report") as tell:
            html, _ = write_report(folder, values)
            for name, stage in {
                "dataset": self.dataset,
                "adapter": self.train,
                "model": self.merge,
                "gguf": self.export,
            }.items():
                link = folder / name
                link.unlink(missing_ok=True)
                link.symlink_to(os.path.relpath(stage.folder, folder))
            tell({"file": str(html)})
        return html

    def _unknowns(self, training: dict[str, Any]) -> list[str]:
        """What a reader must not conclude."""
        texts = [
            "The held-out questions are made by the same rules as the training questions, about other files: they show "
            "what was learned about answering from code, not how people will ask.",
            "A right citation and the right names do not make a whole sentence right; read the answers below.",
            "Forgetting is measured on this repository's held-out code only; general abilities (HumanEval, chat) are not.",
            "One training with one seed: another would end within a few points of this one.",
        ]
        if self.base.origin.lossy:
            texts.append(
                f"The base came as {self.base.origin.quantisation} and was already rounded; nothing here compares with the "
                "original weights."
            )
        if training["n_too_long"]:
            texts.append(
                f"{training['n_too_long']} training examples were longer than the model was trained on and left out."
            )
        return texts

    # -- serving ------------------------------------------------------------------------------------------------

    def require_runtime(self) -> None:
        """Find out before training that the deployment to come has nowhere to go.

        Raises:
            PrerequisiteError: the runtime that was asked for by name is not there.
            InputError: the context asked for is longer than the base's.
        """
        from ai_forge.conductor import choose_runtime

        settings = self.settings.runtime
        if settings.num_ctx > self.base.context_length > 0:
            raise InputError(
                f"runtime.num_ctx is {settings.num_ctx}; {self.base.name} was made for at most {self.base.context_length}.",
                f"add --set runtime.num_ctx={self.base.context_length}.",
            )
        choose_runtime(settings, self.workspace).close()

    def deployment(self) -> Deployment:
        """What is deployed."""
        from ai_forge.conductor import deployment_from_gguf

        return deployment_from_gguf(
            self.model_name,
            self.run_id,
            self.gguf,
            system_prompt=self.system_prompt,
            settings=self.settings.runtime,
            base=self.base.name,
        )

    def write_modelfile(self) -> Path:
        """`Modelfile` in the run's folder, for `ollama create` by hand.

        Raises:
            InputError: Ollama cannot follow the base's chat template.
        """
        from ai_forge.conductor import modelfile_for

        path = self.run_folder / "Modelfile"
        atomic_write(path, modelfile_for(self.deployment()))
        return path

    def deploy(self) -> Deployed:
        """Make the exported model the active version in the runtime, checked there, or leave everything as it was.

        Raises:
            RefusedError: parity fails, or the runtime makes another prompt than the trainer.
        """
        from ai_forge.conductor import Registry, choose_runtime, deploy

        self.parity_result.require()
        runtime = choose_runtime(self.settings.runtime, self.workspace)
        try:
            deployment = self.deployment()
            with (
                self.workspace.lock("deploy"),
                Registry(self.workspace.registry_path) as registry,
                self._told("deploy") as tell,
            ):
                deployed = deploy(
                    deployment,
                    runtime,
                    registry,
                    check=self.check_served,
                    metrics={"verdict": self.verdict.headline, "better": self.verdict.better},
                    keep=self.settings.runtime.keep_versions,
                    progress=lambda what, done, total: self.emit(StageProgress("deploy", done, total, what)),
                )
                tell({"model": deployment.model, "runtime": runtime.kind, "cached": not deployed.changed})
        finally:
            runtime.close()
        return deployed

    def rollback(self) -> Activation:
        """Return to the version that the active one replaced.

        Raises:
            InputError, RefusedError: there is none.
        """
        from ai_forge.conductor import Registry, choose_runtime, rollback

        with self.workspace.lock("deploy"), Registry(self.workspace.registry_path) as registry:
            target = registry.rollback_target(self.model_name)
            settings = self.settings.runtime.model_copy(update={"kind": target.runtime})
            runtime = choose_runtime(settings, self.workspace)
            try:
                return rollback(self.model_name, runtime, registry)
            finally:
                runtime.close()

    def check_served(self, runtime: Runtime, deployment: Deployment) -> None:
        """Ask the new version in its runtime: the prompt it makes must be the trainer's, and it must answer.

        Raises:
            RefusedError: it is not.
        """
        from ai_forge.conductor import prompt_difference

        tokenizer = self.tokenizer
        for chat in self.parity_chats()[:2]:
            text = tokenizer.render(chat)
            difference = prompt_difference(runtime.render(deployment.model, chat), text, len(tokenizer.encode(text)))
            if difference:
                raise RefusedError(
                    f"{deployment.model} is asked in another form than it was trained in: {difference}.",
                    f"report this with the base's name ({self.base.name}); the version before stays active.",
                )
        if not "".join(runtime.chat(deployment.model, chat, max_tokens=8)).strip():
            raise RefusedError(f"{deployment.model} answers nothing.", "the version before stays active.")

    def ask(self, question: str, history: Sequence[Message] = ()) -> Reply:
        """Ask the active model with what the retriever finds for `question`.

        Raises:
            InputError: no version of this repository's model is deployed.
        """
        from ai_forge.conductor import Registry, choose_runtime

        with Registry(self.workspace.registry_path) as registry:
            active = registry.active(self.model_name)
        if active is None:
            raise InputError(
                f"No model of {self.repository.name} is deployed.", f"run `ai-forge run {self.path}` first."
            )
        settings = self.settings.runtime.model_copy(update={"kind": active.runtime})
        runtime = choose_runtime(settings, self.workspace)
        documents = self.retrieve(Index.load(self.index.folder), question)
        messages = messages_for(question, documents)
        chat = [*messages[:1], *history, *messages[1:]]
        return Reply(f"{self.model_name}:{active.version}", active.runtime, documents, runtime, chat)

    # -- the run's folder ---------------------------------------------------------------------------------------

    @cached_property
    def run_folder(self) -> Path:
        """`runs/<run id>`, with the settings and the environment this run was made with."""
        folder = self.workspace.runs_dir / self.run_id
        folder.mkdir(parents=True, exist_ok=True)
        record = folder / "run.json"
        if not record.exists():
            atomic_write(record, json.dumps(self._run_record(), indent=1, default=str))
        return folder

    def _run_record(self) -> dict[str, Any]:
        import platform
        from importlib import metadata

        packages = {
            *("ai-forge", "torch", "transformers", "bitsandbytes", "mlx", "mlx-lm"),
            *("xllamacpp", "gguf", "tokenizers", "numpy"),
        }
        installed = {d.metadata["Name"].lower() for d in metadata.distributions()}
        return {
            "run_id": self.run_id,
            "created": time.strftime("%Y-%m-%d %H:%M:%S"),
            "repository": str(self.repository.root),
            "name": self.repository.name,
            "commit": self.repository.commit,
            "base": as_json(self.base),
            "settings": self.settings.model_dump(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: metadata.version(name) for name in sorted(packages & installed)},
        }


def spread(examples: list[RAFTExample], n: int, seed: int) -> list[RAFTExample]:
    """`n` examples, drawn in turn from every (file, family) so that no large file drowns the others."""
    groups: dict[tuple[str, str], list[RAFTExample]] = {}
    for example in examples:
        groups.setdefault((example.subject_path, example.family), []).append(example)
    generator = random.Random(seed)
    queues = [sorted(group, key=lambda e: e.id) for _, group in sorted(groups.items())]
    for queue in queues:
        generator.shuffle(queue)
    generator.shuffle(queues)
    chosen: list[RAFTExample] = []
    while len(chosen) < n and queues:
        chosen += [queue.pop() for queue in queues][: n - len(chosen)]
        queues = [queue for queue in queues if queue]
    return chosen
