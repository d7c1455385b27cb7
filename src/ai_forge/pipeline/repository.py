"""The stages in order: a repository in, a judged and exported model out. CLI, service and guardian call this one.

Each stage has a key, the hash of what goes into it, and a folder in the workspace's cache. A stage whose folder is whole
is not run again; one that was cut off is run again, or continued where it can be (training). So the same call after a
crash, a Ctrl-C or a small change does only what is left to do.

    base ─┐
    mine → words → dataset → train (→ prefer) → merge → evaluate
      └→ index                                    └──→ export → parity → report
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_forge.config import FineTuneConfig, LoadedSettings
from ai_forge.data_pipeline.dataset import SIDES, Dataset, make_dataset, require_no_leak, taught
from ai_forge.data_pipeline.datasets.storage import read_examples, write_dataset
from ai_forge.data_pipeline.examples.project_notes import ProjectWords, read_words, state_of_words
from ai_forge.data_pipeline.graph.symbols import SymbolGraph
from ai_forge.data_pipeline.miner import MiningResult, mine_repository
from ai_forge.data_pipeline.schemas import CodeBlock, Document, RAFTExample
from ai_forge.data_pipeline.schemas.preference_pairs import PreferencePair
from ai_forge.data_pipeline.search.context import documents_for
from ai_forge.data_pipeline.search.index import Index
from ai_forge.data_pipeline.source.file_dates import read_dates
from ai_forge.data_pipeline.source.repository import Repository, read_repository
from ai_forge.data_pipeline.teacher.client import resolve_teacher
from ai_forge.data_pipeline.teacher.prompt import PROMPT_VERSION
from ai_forge.data_pipeline.teacher.rewording import AnswerCache
from ai_forge.data_pipeline.validator import generate_quality_report
from ai_forge.errors import InputError
from ai_forge.events import Notice, Sink, StageProgress
from ai_forge.file_cache import FileCache
from ai_forge.model_files.base import Base, as_json
from ai_forge.pipeline.stages import Stage, Stages
from ai_forge.prompting.prompt import SYSTEM_PROMPT, Message, messages_for
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.workspace import Workspace, atomic_write, file_sha256, require_disk, stage_key

if TYPE_CHECKING:
    from ai_forge.judge.evaluator import Contender, Evaluation
    from ai_forge.judge.parity import Parity
    from ai_forge.judge.verdict import Verdict
    from ai_forge.prompting.chat import ChatTokenizer
    from ai_forge.training.forge import TrainingPlan
    from ai_forge.training.record import TrainingResult

SECOND_PHASE = {"preferences", "dpo_loss", "dpo_beta", "dpo_learning_rate", "dpo_epochs"}
"""Settings of a training that do not enter its first phase."""
SPREAD = {"nproc", "gradient_checkpointing", "sharded"}
"""Settings of a training that change nothing but its speed (and rounding)."""


def slug(name: str) -> str:
    """A repository's name as a model name that every runtime accepts.

    >>> slug("My Repo (v2)")
    'my-repo-v2'
    """
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "repository"


class Pipeline(Stages):
    """One repository, one resolved configuration. Stages are properties: asking for one runs what it needs.

    Args:
        repository: a folder, a git repository or not.
        loaded: the settings with their sources.
        workspace: where everything is kept.
        emit: hears the events.
    """

    recipe: str | None = None
    """By which `--recipe` it is called."""
    system_prompt = SYSTEM_PROMPT

    def __init__(self, repository: Path, loaded: LoadedSettings, workspace: Workspace, emit: Sink) -> None:
        super().__init__(workspace, emit)
        self.path = repository
        self.loaded = loaded
        self.settings = loaded.settings

    # -- inputs -------------------------------------------------------------------------------------------------

    @cached_property
    def base(self) -> Base:
        """The base model, converted into the cache if it has to be."""
        with self.told("base") as tell:
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
        inputs = {"files": self._snapshot, "base": self.base.fingerprint, "settings": settings}
        if (pairs := self.settings.training.preferences) is not None and Path(pairs).is_file():
            inputs["preferences"] = file_sha256(Path(pairs))
        return stage_key(**inputs)[:12]

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

        def build(folder: Path) -> dict[str, Any]:
            words = read_words(self.repository, self.mined.documents)
            atomic_write(folder / "words.json", words.model_dump_json(indent=1))
            return {"commits": len(words.commits), "sections": len(words.sections)}

        stage = self._stage("words", build, mine=self.mine.key, **state_of_words(self.repository))
        return ProjectWords.model_validate_json((stage.folder / "words.json").read_text(encoding="utf-8"))

    @cached_property
    def _dates(self) -> dict[str, int]:
        """When each file was written; nothing where the split does not ask."""
        return read_dates(self.repository) if self.settings.split.by != "file" else {}

    @cached_property
    def dataset(self) -> Stage:
        """Train, valid and test examples, split before synthesis, validated, with a quality report."""
        settings = self.settings
        asked: dict[str, Any] = {"prompt": PROMPT_VERSION} if settings.synthesis.teacher else {}

        def build(folder: Path) -> dict[str, Any]:
            made = make_dataset(
                self.mined,
                settings,
                dates=self._dates,
                words=self.words,
                embedder=self._embedder(),
                graph_of=self._graph,
                progress=lambda side: self.emit(StageProgress("dataset", SIDES.index(side), len(SIDES), side)),
            )
            if made.split.because:
                self.emit(Notice("info", f"Held out {made.split.rule}."))
            cost: dict[str, Any] = {}
            if settings.synthesis.teacher:
                made, cost["teacher"] = self._taught(made)
            require_no_leak(made)
            files = {side: sorted(p for p, s in made.split.side_of_file.items() if s == side) for side in SIDES}
            atomic_write(folder / "split.json", json.dumps(files, indent=1))
            write_dataset(
                folder,
                made.sides,
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
            atomic_write(
                folder / "quality.md", generate_quality_report([e for side in SIDES for e in made.sides[side]])
            )
            return made.summary() | cost

        return self._stage(
            "dataset",
            build,
            mine=self.mine.key,
            words=self.words.fingerprint,
            split=settings.split.model_dump(),
            dates=self._dates,
            synthesis=settings.synthesis.model_dump(),
            validator=settings.validator.model_dump(),
            **asked,
        )

    def _taught(self, dataset: Dataset) -> tuple[Dataset, dict[str, Any]]:
        """The dataset in the teacher's words, and what that cost."""
        from ai_forge.conductor.ollama_http import ollama_url

        teacher = resolve_teacher(self.settings.synthesis.teacher, ollama_url(self.settings.runtime.ollama_host))
        if not teacher.is_here:
            self.emit(Notice("warning", f"The shown code and its questions are sent to {teacher.url}."))
        key = stage_key(teacher=teacher.name, prompt=PROMPT_VERSION)
        with closing(AnswerCache(self.workspace.cache_dir / "teacher" / f"{key}.jsonl")) as cache:
            say = lambda text: self.emit(Notice("info", text))  # noqa: E731
            return taught(dataset, teacher, cache, self.settings, self._progress("dataset"), say)

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

    @property
    def first_question(self) -> str:
        """What a freshly deployed model is asked first: what a held-out block is for, where there is such a question."""
        held_out = self.held_out_questions
        return next((e.question for e in held_out if e.family == "purpose"), held_out[0].question)

    def chat_about(self, question: str) -> tuple[list[Message], tuple[Document, ...]]:
        """The chat in which the deployed model is asked, and the documents that it is shown in it."""
        documents = self.retrieve(Index.load(self.index.folder), question)
        return messages_for(question, documents), documents

    def retrieve(self, index: Index, question: str) -> tuple[Document, ...]:
        """The documents that are shown with a question."""
        k, budget = self.settings.judge.retrieved_documents, self.settings.synthesis.max_context_tokens
        return documents_for(question, index, k=k, max_tokens=budget)

    # -- model --------------------------------------------------------------------------------------------------

    @cached_property
    def train(self) -> Stage:
        """The adapter of the supervised training."""
        self.require_template()
        settings = self.settings.training.model_dump(exclude=SPREAD | SECOND_PHASE)
        return self._training("train", self.fit, base=self.base.fingerprint, data=self.dataset.key, config=settings)

    @cached_property
    def adapter(self) -> Stage:
        """The adapter that is merged: that of `train`, or trained on from there on `training.preferences`."""
        config = self.settings.training
        if config.preferences is None:
            return self.train
        from ai_forge.training.dpo import PreferenceTrainer, require_whole_base, split_pairs

        require_whole_base(config)  # before the first phase: it may be hours until the second
        sides = split_pairs(self.preference_pairs)
        settings = config.model_dump(exclude=SPREAD | {"preferences"})
        ids = [pair.id for pair in self.preference_pairs]

        def fit(folder: Path) -> TrainingResult:
            from ai_forge.training.distributed.launcher import run_trainer

            parts = self._trainer_parts(folder) | {"adapter": self.train.folder}
            result: TrainingResult = run_trainer(
                PreferenceTrainer, config, "train_preferences", *sides, emit=self.emit, **parts
            )
            return result

        return self._training("prefer", fit, train=self.train.key, pairs=ids, config=settings)

    def _training(self, name: str, fit: Callable[[Path], TrainingResult], **inputs: Any) -> Stage:
        """A stage that continues where it was cut off."""
        from ai_forge.model_files.gguf.writer import check_exportable
        from ai_forge.training.backends import backend_name

        config = self.settings.training

        def build(folder: Path) -> dict[str, Any]:
            self._require_room(self.base, config)
            kind, ollama = self.settings.export.quantization, self.settings.runtime.kind == "ollama"
            check_exportable(self.base.folder, kind, prompt_template=config.prompt_template, ollama=ollama)
            return {k: v for k, v in asdict(fit(folder)).items() if k != "folder"}

        return self._stage(name, build, continues=True, backend=backend_name(config.backend), **inputs)

    @cached_property
    def preference_pairs(self) -> list[PreferencePair]:
        """The pairs of `training.preferences` that are not about held-out files.

        Raises:
            InputError: the file is not there, or holds something else.
        """
        from ai_forge.data_pipeline.datasets.formats import read_dataset

        records = read_dataset(Path(str(self.settings.training.preferences)), "preference").records
        pairs = [record for record in records if isinstance(record, PreferencePair)]
        kept = [pair for pair in pairs if pair.origin.path not in self.held_out_files]
        if len(kept) < len(pairs):
            left_out = f"{len(pairs) - len(kept)} of {len(pairs)} preference pairs are about held-out files"
            self.emit(Notice("info", f"{left_out} and left out."))
        return kept

    @cached_property
    def held_out_files(self) -> frozenset[str]:
        """The files that training must not see."""
        sides = json.loads((self.dataset.folder / "split.json").read_text(encoding="utf-8"))
        return frozenset(sides["valid"] + sides["test"])

    def fit(self, folder: Path) -> TrainingResult:
        """Train in `folder`, or continue there."""
        from ai_forge.training.distributed.launcher import run_trainer
        from ai_forge.training.forge import FineTuneTrainer

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
        from ai_forge.prompting.chat import ChatTokenizer

        tokenizer = ChatTokenizer(self.base.folder, self.settings.training.prompt_template)
        if tokenizer.replaced:
            text = (
                f"The base's chat template leaves out system messages; the plain one of {tokenizer.replaced} is used."
            )
            self.emit(Notice("info", text))
        return tokenizer

    def plan(self) -> TrainingPlan:
        """Counts, tokens, memory and time of a training, measured on the machine, without training."""
        from ai_forge.training.distributed.launcher import run_trainer
        from ai_forge.training.forge import FineTuneTrainer

        config = self.settings.training
        self._require_room(self.base, config)
        data, parts = (self.examples("train"), self.examples("valid")), self._trainer_parts(self.run_folder)
        with self.told("plan") as tell:
            plan: TrainingPlan = run_trainer(FineTuneTrainer, config, "plan", *data, emit=self.emit, **parts)
            tell({"steps": plan.n_steps})
        return plan

    def _require_room(self, base: Base, config: FineTuneConfig) -> None:
        """Find out before training starts that disk or memory will not do."""
        from ai_forge.training.distributed.launcher import n_processes
        from ai_forge.training.fit import require_fit

        require_disk(self.workspace.root, 5 * 2 * base.n_parameters, "Training, merging and exporting")
        n, n_here = n_processes(config)
        require_fit(base.folder, config.model_copy(update={"nproc": n}), n_here)

    @cached_property
    def merge(self) -> Stage:
        """The tuned model as a Hugging Face folder: the adapter merged onto the residual it was trained on."""
        from ai_forge.model_files.merge import merge_adapters_to_base

        adapter = self.adapter

        def build(folder: Path) -> dict[str, Any]:
            merged = merge_adapters_to_base(
                self.base, adapter.folder, folder / "model", progress=self._progress("merge")
            )
            return {"bytes": sum(f.stat().st_size for f in merged.iterdir())}

        return self._stage("merge", build, adapter=adapter.key, base=self.base.fingerprint)

    @property
    def tuned_folder(self) -> Path:
        """The merged model."""
        return self.merge.folder / "model"

    # -- measurements -------------------------------------------------------------------------------------------

    @cached_property
    def held_out_questions(self) -> list[RAFTExample]:
        """The test questions that the judge asks."""
        from ai_forge.judge.held_out import questions_of

        return questions_of(self.examples("test"), self.mined.documents, self.settings.judge)

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
            from ai_forge.judge.held_out import code_of, worked_examples_of
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
            test_files = json.loads((dataset.folder / "split.json").read_text(encoding="utf-8"))["test"]
            held_out = HeldOut(
                questions=self.held_out_questions,
                worked_examples=worked_examples_of(self.examples("train"), settings),
                code=code_of(self.repository.files, test_files, settings, self.settings.miner.secret_placeholder),
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
        settings, export, adapter = self.settings.export, self.export, self.adapter

        def build(folder: Path) -> dict[str, Any]:
            from ai_forge.conductor import LlamaServer
            from ai_forge.judge.parity import Files, compare
            from ai_forge.training.backends import load_backend

            backend, tokenizer = load_backend(self.settings.training.backend), self.tokenizer
            chats = self.parity_chats()
            longest = max(len(tokenizer.encode_prompt(chat)) for chat in chats) + settings.parity_tokens
            trainee = backend.trainee.from_adapter(self.base.folder, adapter.folder, self.settings.training, exact=True)
            trainer = backend.generator(trainee.model, tokenizer.end_of_turn_id)
            with (
                LlamaServer(export.folder / "model.f16.gguf", longest + 8) as f16,
                nullcontext(f16) if settings.quantization == "f16" else LlamaServer(self.gguf, longest + 8) as deployed,
            ):
                files = Files(f16, deployed, settings.quantization)
                result = compare(trainer, files, tokenizer, chats, settings.parity_tokens, self._progress("parity"))
            atomic_write(folder / "parity.json", result.model_dump_json(indent=1))
            return result.rows

        return self._stage(
            "parity",
            build,
            export=export.key,
            adapter=adapter.key,
            data=self.dataset.key,
            settings=settings.model_dump(),
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

    def _told_preferences(self) -> list[tuple[str, str]]:
        if self.adapter is self.train:
            return []
        phase, n = self.adapter.counts, len(self.preference_pairs)
        losses = f"held-out loss {phase['first_loss']:.3f} → {phase['last_loss']:.3f}"
        return [("second phase", f"{n} preference pairs ({self.settings.training.dpo_loss}), {losses}")]

    @cached_property
    def report(self) -> Path:
        """`report.html` in the run's folder (`report.md` beside it)."""
        from ai_forge.judge.report import ReportData, unknowns, write_report
        from ai_forge.training.record import TrainingRecord

        folder, adapter = self.run_folder, self.adapter
        training = TrainingRecord.read(self.train.folder)
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
                *self._told_preferences(),
            ],
            training=training,
            evaluation=self.evaluation,
            verdict=self.verdict,
            parity=self.parity_result.rows,
            unknowns=unknowns(training, origin),
        )
        with self.told("report") as tell:
            html, _ = write_report(folder, values)
            for name, stage in {
                "dataset": self.dataset,
                "adapter": adapter,
                "model": self.merge,
                "gguf": self.export,
            }.items():
                link = folder / name
                link.unlink(missing_ok=True)
                link.symlink_to(os.path.relpath(stage.folder, folder))
            tell({"file": str(html)})
        return html

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
