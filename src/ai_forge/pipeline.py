"""The stages in order: a repository in, a judged and exported model out. CLI, service and guardian call this one.

Each stage has a key, the hash of what goes into it, and a folder in the workspace's cache. A stage whose folder is whole
is not run again; one that was cut off is run again, or continued where it can be (training). So the same call after a
crash, a Ctrl-C or a small change does only what is left to do.

    base ─┐
    mine → dataset → train → merge → evaluate
              │                └──→ export → parity → report
              └→ index
"""

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ai_forge.config import FineTuneConfig, LoadedSettings
from ai_forge.data_pipeline.context import documents_for
from ai_forge.data_pipeline.miner import MiningResult, mine_repository
from ai_forge.data_pipeline.raft_generator import synthesize
from ai_forge.data_pipeline.repository import Repository, read_repository
from ai_forge.data_pipeline.retrieval import Index
from ai_forge.data_pipeline.schemas import Document, RAFTExample
from ai_forge.data_pipeline.splits import check_no_leak, split_by_file
from ai_forge.data_pipeline.storage import load_mining, read_examples, save_mining, write_jsonl
from ai_forge.data_pipeline.symbols import SymbolGraph
from ai_forge.data_pipeline.validator import filter_dataset, generate_quality_report
from ai_forge.errors import InputError, RefusedError
from ai_forge.events import Notice, Sink, StageFinished, StageProgress, StageStarted
from ai_forge.training.bases import Base, as_json, resolve_base
from ai_forge.workspace import Workspace, atomic_write, require_disk, stage_key

STAGES = ("base", "mine", "dataset", "index", "train", "merge", "evaluate", "export", "parity", "report", "deploy")
VERSIONS = {"mine": 1, "dataset": 1, "index": 1, "train": 1, "merge": 1, "evaluate": 1, "export": 1, "parity": 1}
"""Raised when a stage's code changes what it makes from the same input."""
SIDES = ("train", "valid", "test")


@dataclass(frozen=True)
class Stage:
    """A finished stage: where its output lies, and what it counted."""

    name: str
    key: str
    folder: Path
    counts: dict[str, Any]


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
        began, told = time.monotonic(), {}
        self.emit(StageStarted(stage))
        yield told.update
        self.emit(StageFinished(stage, time.monotonic() - began, bool(told.pop("cached", False)), told))

    def _stage(self, name: str, build: Callable[[Path], dict[str, Any]], **inputs: Any) -> Stage:
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
        settings = self.settings.model_dump(exclude={"runtime"})
        return stage_key(files=self._snapshot, base=self.base.fingerprint, settings=settings)[:12]

    @cached_property
    def _snapshot(self) -> str:
        return stage_key(files=[(file.path, file.blob_id) for file in self.repository.files])

    # -- data ---------------------------------------------------------------------------------------------------

    @cached_property
    def mine(self) -> Stage:
        """The repository's blocks."""

        def build(folder: Path) -> dict[str, Any]:
            result = mine_repository(self.repository, self.settings.miner, progress=self._progress("mine"))
            save_mining(folder, result)
            return result.summary()

        return self._stage("mine", build, files=self._snapshot, settings=self.settings.miner.model_dump())

    @cached_property
    def mined(self) -> MiningResult:
        """The content of `mine`.

        Raises:
            InputError: nothing in the repository can be asked about.
        """
        result = load_mining(self.mine.folder)
        if not result.blocks:
            reasons = ", ".join(f"{reason}: {n}" for reason, n in (result.rejected + result.skipped).most_common(5))
            raise InputError(
                f"Nothing in {self.path} can be asked about: {len(result.documents)} blocks were found in "
                f"{result.n_files} files, none passes the filters ({reasons or 'no definitions'}).",
                "set miner.require_docstring to false, or name a repository with more code.",
            )
        if result.advice:
            self.emit(Notice("warning", result.advice))
        return result

    @cached_property
    def dataset(self) -> Stage:
        """Train, valid and test examples, split before synthesis, validated, with a quality report."""
        settings = self.settings

        def build(folder: Path) -> dict[str, Any]:
            split = split_by_file(self.mined.blocks, settings.split, documents=self.mined.documents)
            rejected: Counter[str] = Counter()
            kept: dict[str, list[RAFTExample]] = {}
            for done, side in enumerate(SIDES):
                self.emit(StageProgress("dataset", done, len(SIDES), side))
                shown = getattr(split, f"{side}_documents")
                graph = SymbolGraph(shown, self.mined.imports)
                made = synthesize(getattr(split, side), documents=shown, settings=settings.synthesis, graph=graph)
                kept[side], dropped = filter_dataset(made.examples, settings.validator)
                rejected += made.rejected + dropped
                write_jsonl(folder / f"{side}.jsonl", kept[side])
            leaks = check_no_leak(kept["train"], split)
            if leaks:
                raise RefusedError(
                    f"{len(leaks)} training examples show held-out code, the first {leaks[0].citation} ({leaks[0].reason}).",
                    "this is a bug of the split; please report it with the repository's structure.",
                )
            files = {side: sorted(p for p, s in split.side_of_file.items() if s == side) for side in SIDES}
            atomic_write(folder / "split.json", json.dumps(files, indent=1))
            atomic_write(folder / "quality.md", generate_quality_report([e for side in SIDES for e in kept[side]]))
            return {**{side: len(kept[side]) for side in SIDES}, "rejected": dict(rejected), "split": split.summary()}

        return self._stage(
            "dataset",
            build,
            mine=self.mine.key,
            split=settings.split.model_dump(),
            synthesis=settings.synthesis.model_dump(),
            validator=settings.validator.model_dump(),
        )

    def examples(self, side: str) -> list[RAFTExample]:
        """The examples of a side of the dataset."""
        return read_examples(self.dataset.folder / f"{side}.jsonl")

    @cached_property
    def index(self) -> Stage:
        """The retriever over the whole repository."""
        embedder = self.settings.synthesis.embedder

        def build(folder: Path) -> dict[str, Any]:
            index = Index.build(self.mined.documents, embedder)
            index.save(folder)
            return {"blocks": len(index.blocks)}

        return self._stage("index", build, mine=self.mine.key, embedder=embedder)

    def retrieve(self, index: Index, question: str) -> tuple[Document, ...]:
        """The documents that are shown with a question."""
        k, budget = self.settings.judge.retrieved_documents, self.settings.synthesis.max_context_tokens
        return documents_for(question, index, k=k, max_tokens=budget)

    # -- model --------------------------------------------------------------------------------------------------

    @cached_property
    def train(self) -> Stage:
        """The adapter; continues a training that was cut off."""
        from ai_forge.training.forge import FineTuneTrainer

        config = self.settings.training
        dataset, base = self.dataset, self.base
        key = stage_key(stage="train", version=VERSIONS["train"], base=base.fingerprint, data=dataset.key, config=config)
        with self._told("train") as tell:
            manifest = self.workspace.finished("train", key)
            if manifest is None:
                self._require_room(base, config)
                trainer = FineTuneTrainer(
                    config,
                    base=base,
                    folder=self.workspace.work_folder("train", key),
                    workspace=self.workspace,
                    emit=self.emit,
                )
                result = trainer.train(self.examples("train"), self.examples("valid"))
                counts = {k: v for k, v in asdict(result).items() if k != "folder"}
                self.workspace.promote("train", key, counts)
                tell(counts)
            else:
                counts = manifest["counts"]
                tell({**counts, "cached": True})
        return Stage("train", key, self.workspace.stage_folder("train", key), counts)

    def _require_room(self, base: Base, config: FineTuneConfig) -> None:
        """Find out before training starts that disk or memory will not do."""
        import psutil

        from ai_forge.training.plan import memory_of, require_memory

        require_disk(self.workspace.root, 5 * 2 * base.n_parameters, "Training, merging and exporting")
        require_memory(memory_of(base.folder, config), psutil.virtual_memory().available)

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
        """The test questions that the judge asks: those with an oracle, spread over files and families."""
        settings = self.settings.judge
        answerable = [e for e in self.examples("test") if e.oracle_documents]
        return spread(answerable, settings.n_questions, settings.seed)

    @cached_property
    def evaluate(self) -> Stage:
        """Base and tuned model on held-out questions and code: `evaluation.json`."""
        from ai_forge.judge.evaluator import Evaluator, HeldOut
        from ai_forge.training.backends.torch_model import TorchGenerator
        from ai_forge.training.chat import ChatTokenizer

        settings = self.settings.judge
        merge, dataset = self.merge, self.dataset
        retriever_key = self.index.key

        def build(folder: Path) -> dict[str, Any]:
            tokenizer = ChatTokenizer(self.base.folder)
            index = Index.load(self.index.folder)
            evaluator = Evaluator(
                lambda tuned: TorchGenerator.load(
                    self.tuned_folder if tuned else self.base.folder, tokenizer.end_of_turn_id
                ),
                tokenizer,
                lambda question: self.retrieve(index, question),
                settings,
                self.emit,
            )
            worked = [e for e in self.examples("train") if e.oracle_documents and e.difficulty == "medium"]
            held_out = HeldOut(
                questions=self.held_out_questions,
                worked_examples=spread(worked, settings.n_worked_examples, settings.seed),
                code=self._held_out_code(),
            )
            evaluation = evaluator.evaluate(held_out)
            atomic_write(folder / "evaluation.json", evaluation.model_dump_json(indent=1))
            return {"questions": len(held_out.questions), "code_files": len(held_out.code)}

        return self._stage(
            "evaluate",
            build,
            merge=merge.key,
            data=dataset.key,
            index=retriever_key,
            settings=settings.model_dump(exclude={"confidence", "forgetting_budget", "batch_size"}),
            budget=self.settings.synthesis.max_context_tokens,
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
            text = file.content[:share].decode("utf-8", errors="ignore").rpartition("\n")[0]
            if text.strip():
                chosen.append((file.path, text))
                left -= len(text.encode())
        return chosen

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

        return self._stage("export", build, merge=self.merge.key, kinds=kinds, name=self.model_name)

    @property
    def gguf(self) -> Path:
        """The file that is deployed."""
        return self.export.folder / f"model.{self.settings.export.quantization}.gguf"

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

        packages = ("ai-forge", "torch", "transformers", "bitsandbytes", "xllamacpp", "gguf", "tokenizers", "numpy")
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
            "packages": {name: metadata.version(name) for name in packages if name in installed},
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
