"""`FineTuneTrainer`: a base and a dataset in, a trained adapter out.

    work folder while training      init/ schedule.json step-NNNNNN/ loss.png
    result                          adapter_model.safetensors adapter_config.json (PEFT), see adapter_folder.py
                                    residual.safetensors      what the adapter was trained on
                                    initial_adapter.safetensors  the adapter before the first step
                                    training.json             config, initialisation, history, best step
                                    chat_template.jinja       how the model is asked, where not in the base's way

A trainer that is pointed at the same work folder again continues where the last one stopped.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from ai_forge.config import FineTuneConfig
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.errors import InputError
from ai_forge.events import AdapterInitialised, Notice, PlanMade, Sink, StageProgress, ignore
from ai_forge.model_files.adapter import CHAT_TEMPLATE, CONFIG, INITIAL, WEIGHTS, AdapterFolder, peft_config
from ai_forge.model_files.base import Base
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import Message, messages_for
from ai_forge.training.backends import backend_name, load_backend
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.group import ALONE, Group
from ai_forge.training.loop import run_loop
from ai_forge.training.losses import SupervisedObjective, sft_loss, token_weights
from ai_forge.training.memory import memory_range, with_checkpointing_settled
from ai_forge.training.oom_recovery import MicroBatches
from ai_forge.training.plan import Schedule, lay_schedule, probe_speed
from ai_forge.training.tokens.packing import (
    Batch,
    TokenizedExample,
    by_context,
    code_replay,
    collate,
    n_packed_tokens,
    tokenize_all,
)
from ai_forge.workspace import Workspace, atomic_write, stage_key

INITIALISATION_VERSION = 4
INITIALISATION_SETTINGS = {
    "init_method", "quantization", "quantization_iterations", "nf4_block_size", "rank", "alpha", "use_rslora",
    "rank_pattern", "alpha_pattern", "target_modules", "svd_oversampling", "svd_tolerance", "seed",
}  # fmt: skip
SCHEDULE = "schedule.json"
Asked = tuple[str, list[Message]]
"""What is asked while training: its title and the chat."""
SAMPLES, SAMPLE_TOKENS = 2, 64
CHECK_TEXT = '''def moving_average(values, window):
    """Mean of each run of `window` values.

    Raises ValueError if the window is longer than the values.
    """
    if window > len(values):
        raise ValueError(f"window {window} exceeds {len(values)} values")
    return [sum(values[i : i + window]) / window for i in range(len(values) - window + 1)]


# The quick brown fox jumps over the lazy dog, and the parser reads every token of this line before it stops.
'''


@dataclass(frozen=True)
class TrainingResult:
    """A finished training: `folder` holds the adapter in PEFT's format and the residual.

    `first_loss` and `last_loss` are held out; `trained_first_loss` and `trained_last_loss` those of the examples that were
    trained on, where they were measured (nats per token, before the first step and of the result).
    """

    folder: Path
    best_step: int
    n_steps: int
    first_loss: float
    last_loss: float
    n_too_long: int
    trained_first_loss: float | None = None
    trained_last_loss: float | None = None


class FineTuneTrainer:
    """Trains adapters on a base.

    Args:
        config: every setting; `config.base_model` names the base.
        base: the resolved base; resolved from the config's name where it is left out.
        folder: where to work and leave the result; a new one in the workspace where it is left out.
        workspace: where bases and initialisations are cached.
        adapter: a folder with an adapter, ours or PEFT's, that training continues; a fresh one where it is left out.
        emit: hears the events.
        group: the processes that train together, all with the same arguments; see `launcher`.
    """

    def __init__(
        self,
        config: FineTuneConfig,
        *,
        base: Base | None = None,
        folder: Path | None = None,
        workspace: Workspace | None = None,
        adapter: Path | None = None,
        emit: Sink = ignore,
        group: Group = ALONE,
    ) -> None:
        if config.nproc != group.size:
            raise InputError(
                f"training.nproc is {config.nproc}, which only `ai-forge train` and `run` can start.",
                "leave it out here.",
            )
        if config.sharded and (group.size == 1 or backend_name(config.backend) != "torch"):
            raise InputError(
                "training.sharded cuts the base into pieces for several processes on torch; this is one, or another backend.",
                "add --nproc, start it with torchrun, or leave the setting out.",
            )
        self.group = group
        self.workspace = workspace or Workspace.open()
        self.base = base or resolve_base(config.base_model, cache_dir=self.workspace.cache_dir)
        longest = min(config.max_seq_len, self.base.context_length or config.max_seq_len)
        self.config = config.model_copy(update={"max_seq_len": longest})
        self.folder = folder or self.workspace.work_folder("train", stage_key(**config.model_dump()))
        self.tokenizer = ChatTokenizer(self.base.folder, config.prompt_template)
        self.backend = load_backend(config.backend)
        self.config = self._settled(config)
        self.adapter = adapter
        self._emit = emit

    def _settled(self, config: FineTuneConfig) -> FineTuneConfig:
        """`config` with gradient checkpointing on or off, alike in all processes; MLX settles auto batch by batch."""
        if self.backend.name != "torch":
            return config

        def estimate(changed: FineTuneConfig) -> dict[str, int]:
            return self.backend.memory_needed(self.base.folder, changed)

        chosen = with_checkpointing_settled(config, self.backend.free_bytes(self.group.n_here), estimate)
        (n_short,) = self.group.sum([chosen.gradient_checkpointing == "on"])
        return config.model_copy(update={"gradient_checkpointing": "on" if n_short else "off"})

    # -- initialisation -----------------------------------------------------------------------------------------

    @property
    def initialisation_key(self) -> str:
        """Under which the workspace's stage `initialise` keeps the start of the adapter."""
        settings = self.config.model_dump(include=INITIALISATION_SETTINGS)
        made_by = {"version": INITIALISATION_VERSION, "base": self.base.fingerprint, "backend": self.backend.name}
        return stage_key(**made_by, **settings)

    def _check_batch(self) -> Batch:
        ids = self.tokenizer.encode(CHECK_TEXT)
        return collate([TokenizedExample(tuple(ids), 1)])

    def compute_pissa_init(self) -> AdapterInitialised:
        """Decompose the base's weights, quantise the residual, check the logits; cached by (weights, rank, settings).

        Raises:
            InputError: the rank or the target modules do not fit the base.
            InternalError: the initialised model does not say what the base says.
        """
        key = self.initialisation_key
        folder = self.workspace.stage_folder("initialise", key)
        if self.workspace.finished("initialise", key) is None:
            with self.workspace.building("initialise", key) as (work, _):
                trainee, report = self.backend.initialise(
                    self.base.folder,
                    self.config,
                    self._check_batch(),
                    progress=lambda done, total: self._emit(StageProgress("train", done, total, "decomposing")),
                )
                trainee.save_residual(work / "residual.safetensors")
                save_file(dict(trainee.adapter()), work / WEIGHTS)
                atomic_write(work / CONFIG, json.dumps(peft_config(self.config, self.base.name), indent=1))
                atomic_write(work / "initialisation.json", json.dumps(dataclasses.asdict(report), indent=1))
        report = AdapterInitialised(**json.loads((folder / "initialisation.json").read_text(encoding="utf-8")))
        self._emit(report)
        return report

    def _start(self) -> tuple[Path, AdapterInitialised | None]:
        """The folder of the adapter that training begins with, and its initialisation where it is a fresh one."""
        if self.adapter is None:
            initialisation = self.compute_pissa_init()
            return self.workspace.stage_folder("initialise", self.initialisation_key), initialisation
        adapter = AdapterFolder(self.adapter)
        trained_with = self.adapter / CHAT_TEMPLATE
        if trained_with.is_file() and trained_with.read_text(encoding="utf-8") != self.tokenizer.chat_template:
            raise InputError(
                f"{self.adapter} was trained with another prompt template.",
                "add --set training.prompt_template=alpaca.",
            )
        self._emit(Notice("info", f"continuing the adapter in {self.adapter} on {len(adapter.layers)} layers."))
        return self.adapter, None

    # -- training -----------------------------------------------------------------------------------------------

    def train(
        self,
        train_dataset: Sequence[RAFTExample],
        eval_dataset: Sequence[RAFTExample],
        num_epochs: int | None = None,
    ) -> TrainingResult:
        """Train on `train_dataset`, stop early on `eval_dataset`; continues a run that was cut off.

        Raises:
            InputError: no example fits into `max_seq_len`, or the time budget is too short for a step.
            RefusedError: the loss diverged.
        """
        config = self.config if num_epochs is None else self.config.model_copy(update={"num_epochs": num_epochs})
        train, held_out, n_too_long = self.tokenized(train_dataset, eval_dataset)
        asked = [(e.question, messages_for(e.question, e.shown_documents)) for e in eval_dataset[:SAMPLES]]
        return self._supervised(train, held_out, config, n_too_long, asked)

    def _supervised(
        self,
        train: list[TokenizedExample],
        held_out: list[TokenizedExample],
        config: FineTuneConfig,
        n_too_long: int,
        asked: Sequence[Asked],
        *,
        told: Sequence[TokenizedExample] = (),
    ) -> TrainingResult:
        """Supervised training from start to result; the loss on `told` is measured before and after."""
        start, initialisation = self.group.first(self._start)
        trainee = self._trainee(start, config)
        path = self.folder / SCHEDULE
        known = self.group.first(lambda: Schedule.load(path) if path.exists() else None)
        schedule = known or self._schedule(trainee, train, held_out, config)
        losses = {"trained_first_loss": self._loss_on(told, trainee)} if told else {}
        best_step, history = self._run(trainee, train, held_out, config, schedule, sft_loss, asked)
        losses |= {"trained_last_loss": self._loss_on(told, trainee)} if told else {}
        record = {
            "initialisation": dataclasses.asdict(initialisation) if initialisation else None,
            "n_too_long": n_too_long,
            **losses,
        }
        return self.group.first(lambda: self._finish(trainee, start, config, schedule, best_step, history, record))

    def _trainee(self, start: Path, config: FineTuneConfig) -> Any:
        sharded = {"sharded": True} if config.sharded else {}
        return self.backend.trainee.from_adapter(self.base.folder, start, config, **sharded)

    def _loss_on(self, examples: Sequence[TokenizedExample], trainee: Any) -> float:
        micro = MicroBatches.of(self.config, self._emit, self.group)
        return micro.evaluate(trainee, SupervisedObjective(), examples).mean_loss

    def _run(
        self,
        trainee: Any,
        train: Sequence[Any],
        held_out: Sequence[Any],
        config: FineTuneConfig,
        schedule: Schedule,
        loss: Any,
        asked: Sequence[Asked],
    ) -> tuple[int, list[dict[str, Any]]]:
        """The loop, with the schedule told and kept, and sample answers to what is `asked`."""
        self.group.first(lambda: schedule.save(self.folder / SCHEDULE))
        self._emit(PlanMade(**dataclasses.asdict(schedule)))
        generator = self.backend.generator(trainee.model, self.tokenizer.end_of_turn_id)
        prompts = [self.tokenizer.encode_prompt(chat) for _, chat in asked]

        def sample() -> list[tuple[str, str]]:
            replies = generator.generate(prompts, SAMPLE_TOKENS) if prompts else []
            return [(title, self.tokenizer.decode(reply)) for (title, _), reply in zip(asked, replies, strict=True)]

        return run_loop(
            trainee, train, held_out, config, schedule, self.folder, loss, self._emit, sample=sample, group=self.group
        )

    def _finish(
        self,
        trainee: Any,
        start: Path,
        config: FineTuneConfig,
        schedule: Schedule,
        best_step: int,
        history: list[dict[str, Any]],
        more: dict[str, Any],
    ) -> TrainingResult:
        """Leave the result in the work folder and remove what only a resumed run would need."""
        save_file(dict(trainee.adapter()), self.folder / WEIGHTS)
        shutil.copyfile(start / CONFIG, self.folder / CONFIG)
        first = start / INITIAL
        link_or_copy(first if first.exists() else start / WEIGHTS, self.folder / INITIAL)
        residuals = [path.name for path in start.glob("residual*.safetensors")]  # where it is held packed, two
        for left in self.folder.glob("residual*.safetensors"):
            if left.name not in residuals:
                left.unlink()  # an earlier training's, in the same folder
        for name in residuals:
            link_or_copy(start / name, self.folder / name)
        record = {
            "config": config.model_dump(),
            "base": self.base.name,
            "backend": self.backend.name,
            "schedule": dataclasses.asdict(schedule),
            "best_step": best_step,
            "history": history,
        }
        if self.tokenizer.chat_template != self.base.chat_template:
            atomic_write(self.folder / CHAT_TEMPLATE, self.tokenizer.chat_template)
        atomic_write(self.folder / "training.json", json.dumps(record | more, indent=1))
        for checkpoint in self.folder.glob("step-*"):
            shutil.rmtree(checkpoint)
        for reference in self.folder.glob("reference-*.json"):
            reference.unlink()
        losses = {r["step"]: r["loss"] for r in history if r["event"] == "EvalFinished"}
        return TrainingResult(
            self.folder,
            best_step,
            schedule.n_steps,
            losses[0],
            losses[best_step],
            int(more["n_too_long"]),
            more.get("trained_first_loss"),
            more.get("trained_last_loss"),
        )

    def plan(self, train_dataset: Sequence[RAFTExample], eval_dataset: Sequence[RAFTExample]) -> dict[str, Any]:
        """What `train` would do: examples, tokens, steps and seconds, by a probe in these processes, and the memory of each of
        them; nothing is trained."""
        train, held_out, n_too_long = self.tokenized(train_dataset, eval_dataset)
        start, _ = self.group.first(self._start)
        trainee = self._trainee(start, self.config)
        schedule = self._schedule(trainee, train, held_out, self.config)
        needed = self.backend.memory_needed(self.base.folder, self.config)
        return {
            **dataclasses.asdict(schedule),
            "train_examples": len(train),
            "train_tokens": sum(len(example.ids) for example in train),
            "supervised_tokens": sum(example.n_supervised for example in train),
            "longest_example_tokens": max(len(example.ids) for example in train),
            "n_too_long": n_too_long,
            "processes": self.group.size,
            "gradient_checkpointing": self.config.gradient_checkpointing,
            "memory_bytes": needed,
            "memory_range_bytes": {name: dataclasses.asdict(size) for name, size in memory_range(needed).items()},
        }

    def _weigh(self, example: RAFTExample) -> tuple[float, ...]:
        starts = self.tokenizer.target_starts(example.target)
        return token_weights(starts, example.target, len(example.final_answer.strip()), self.config)

    def tokenized(
        self, train_dataset: Sequence[RAFTExample], eval_dataset: Sequence[RAFTExample]
    ) -> tuple[list[TokenizedExample], list[TokenizedExample], int]:
        """What the steps read, what the evaluations read, and how many training examples are too long.

        Raises:
            InputError: nothing fits into `max_seq_len`.
        """
        limit = self.config.max_seq_len
        train, n_too_long = tokenize_all(train_dataset, self.tokenizer, limit, self._weigh)
        held_out, _ = tokenize_all(eval_dataset, self.tokenizer, limit)
        held_out = by_context(held_out)[: self.config.eval_examples]
        if not train or not held_out:
            raise InputError(
                f"{len(train)} training and {len(held_out)} held-out examples fit into {limit} tokens "
                f"({n_too_long} are longer); at least one of each is needed.",
                "raise training.max_seq_len, lower synthesis.max_context_tokens, or mine more code.",
            )
        if n_too_long:
            self._emit(
                Notice("warning", f"{n_too_long} training examples are longer than {limit} tokens and left out.")
            )
        share = self.config.replay_share
        n_replayed = round(len(train) * share / (1 - share))
        replayed = code_replay(
            train_dataset, self.tokenizer, n_replayed, min(limit, self.config.replay_tokens), self.config.seed
        )
        return [*train, *replayed], held_out, n_too_long

    def _schedule(
        self, trainee: Any, train: list[TokenizedExample], held_out: list[TokenizedExample], config: FineTuneConfig
    ) -> Schedule:
        self._emit(StageProgress("train", 0, 0, "measuring the speed"))
        speed = probe_speed(trainee, train, config, sft_loss, group=self.group)
        n_eval_tokens = n_packed_tokens(held_out, config.micro_batch_size)
        return self.group.first(lambda: lay_schedule(train, n_eval_tokens, speed, config))


def link_or_copy(source: Path, target: Path) -> None:
    """Give a large file a second place without a second copy, where the file system can."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
