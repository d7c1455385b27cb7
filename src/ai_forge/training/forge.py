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
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from safetensors.numpy import save_file

from ai_forge.cancel import NEVER, CancelToken
from ai_forge.config import FineTuneConfig
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.data_pipeline.schemas.completions import CompletionExample
from ai_forge.errors import InputError
from ai_forge.events import AdapterInitialised, Notice, Sink, StageProgress, ignore
from ai_forge.json_lines import JsonObject
from ai_forge.model_files.adapter import CHAT_TEMPLATE, CONFIG, INITIAL, WEIGHTS, AdapterFolder, peft_config
from ai_forge.model_files.base import Base
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.training.backends import backend_name, load_backend
from ai_forge.training.backends.base import TokenSums
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.fit import with_checkpointing_settled
from ai_forge.training.group import ALONE, Group, cancellation
from ai_forge.training.history import initialisation_from
from ai_forge.training.loop import LoopResult, Surroundings, Task, run_loop
from ai_forge.training.losses import DistillationObjective, SupervisedObjective, sft_loss
from ai_forge.training.memory import MemoryRange, memory_range
from ai_forge.training.oom_recovery import MicroBatches
from ai_forge.training.plan import SCHEDULE, Schedule, lay_schedule, probe_speed
from ai_forge.training.record import TrainingRecord, TrainingResult
from ai_forge.training.supervised_data import Asked, Reading, SupervisedData
from ai_forge.training.tokens.packing import (
    TeacherTokens,
    TokenizedExample,
    collate,
    n_packed_tokens,
)
from ai_forge.workspace import Workspace, atomic_write, link_or_copy, read_json, stage_key

INITIALISATION_VERSION = 4
INITIALISATION_SETTINGS = {
    "init_method", "quantization", "quantization_iterations", "nf4_block_size", "rank", "alpha", "use_rslora",
    "rank_pattern", "alpha_pattern", "target_modules", "svd_oversampling", "svd_tolerance", "seed",
}  # fmt: skip
SAMPLE_TOKENS = 64
WAIT_FOR_ANOTHER_S = 6 * 3600.0
EXAMPLES_AT_A_TIME = 64  # between so many the loss over many examples can be cancelled
CHECK_TEXT = '''def moving_average(values, window):
    """Mean of each run of `window` values.

    Raises ValueError if the window is longer than the values.
    """
    if window > len(values):
        raise ValueError(f"window {window} exceeds {len(values)} values")
    return [sum(values[i : i + window]) / window for i in range(len(values) - window + 1)]


# The quick brown fox jumps over the lazy dog, and the parser reads every token of this line before it stops.
'''


class TrainingPlan(BaseModel):
    """What a training would do and take: measured where it says speed and seconds, computed where it says memory."""

    model_config = ConfigDict(frozen=True)

    n_steps: int
    n_examples: int
    tokens_per_s: float
    expected_s: float
    reason: str
    train_examples: int
    train_tokens: int
    supervised_tokens: int
    longest_example_tokens: int
    n_too_long: int
    processes: int
    gradient_checkpointing: str
    memory_bytes: dict[str, int]
    memory_range_bytes: dict[str, MemoryRange]


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
        cancel: stops the training at the end of the step in hand, which is saved, and raises `CancelledError`.
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
        cancel: CancelToken = NEVER,
    ) -> None:
        check_processes(config, group)
        self.group, self.cancel, self.adapter, self._emit = group, cancel, adapter, emit
        self.workspace = workspace or Workspace.open()
        self.base = base or resolve_base(config.base_model, cache_dir=self.workspace.cache_dir)
        self.folder = folder or self.workspace.work_folder("train", stage_key(**config.model_dump()))
        self.tokenizer = ChatTokenizer(self.base.folder, config.prompt_template)
        self.backend = load_backend(config.backend)
        # within the context first: the memory that settles checkpointing is that of the examples that are really read
        self.config = self._with_checkpointing_settled(within_context(config, self.base))
        self.reading = Reading(self.tokenizer, self.config, self.base.name, self.backend.name, emit)

    def _with_checkpointing_settled(self, config: FineTuneConfig) -> FineTuneConfig:
        """`config` with gradient checkpointing on or off, alike in all processes; MLX settles auto batch by batch."""
        if self.backend.name != "torch":
            return config

        def estimate(changed: FineTuneConfig) -> dict[str, int]:
            return self.backend.memory_needed(self.base.folder, changed)

        trained = config
        if self.adapter is not None:  # its own layers are trained, whatever the settings name
            trained = config.model_copy(update={"target_modules": tuple(AdapterFolder(self.adapter).layers)})
        chosen = with_checkpointing_settled(trained, self.backend.free_bytes(self.group.n_here), estimate)
        (n_short,) = self.group.sum(
            [chosen.gradient_checkpointing == "on"]
        )  # one that is short of memory decides for all
        return config.model_copy(update={"gradient_checkpointing": "on" if n_short else "off"})

    # -- initialisation -----------------------------------------------------------------------------------------

    @property
    def initialisation_key(self) -> str:
        """Under which the workspace's stage `initialise` keeps the start of the adapter."""
        settings = self.config.model_dump(include=INITIALISATION_SETTINGS)
        made_by = {"version": INITIALISATION_VERSION, "base": self.base.fingerprint, "backend": self.backend.name}
        return stage_key(**made_by, **settings)

    def _decomposed(self, done: int, total: int) -> None:
        self._emit(StageProgress("train", done, total, "decomposing"))
        self.cancel.check()

    def compute_pissa_init(self) -> AdapterInitialised:
        """Decompose the base's weights, quantize the residual, check the logits; cached by (weights, rank, settings).

        Raises:
            InputError: the rank or the target modules do not fit the base.
            InternalError: the initialised model does not say what the base says.
        """
        key = self.initialisation_key
        folder = self.workspace.stage_folder("initialise", key)
        # another run on the same base may be at it
        with self.workspace.lock(f"initialise-{key}", wait_s=WAIT_FOR_ANOTHER_S, check=self.cancel.check):
            if self.workspace.finished("initialise", key) is None:
                self._initialise(key)
        report: AdapterInitialised = initialisation_from(read_json(folder / "initialisation.json"))
        self._emit(report)  # a cached one too: who watches is to hear what is trained
        return report

    def _initialise(self, key: str) -> None:
        with self.workspace.building("initialise", key) as (work, _):
            check = collate([TokenizedExample(tuple(self.tokenizer.encode(CHECK_TEXT)), 1)])
            trainee, made = self.backend.initialise(self.base.folder, self.config, check, progress=self._decomposed)
            trainee.save_residual(work / "residual.safetensors")
            save_file(dict(trainee.adapter()), work / WEIGHTS)
            atomic_write(work / CONFIG, json.dumps(peft_config(self.config, self.base.name), indent=1))
            atomic_write(work / "initialisation.json", json.dumps(dataclasses.asdict(made), indent=1))

    def begin(self) -> tuple[Path, AdapterInitialised | None]:
        """The folder of the adapter that training begins with, and its initialisation where it is a fresh one."""
        if self.adapter is None:
            initialisation = self.compute_pissa_init()
            return self.workspace.stage_folder("initialise", self.initialisation_key), initialisation
        adapter = AdapterFolder(self.adapter)
        trained_with = self.adapter / CHAT_TEMPLATE  # there only where it is not the base's own
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
        teacher: Mapping[str, TeacherTokens] | None = None,
        completions: Sequence[CompletionExample] = (),
    ) -> TrainingResult:
        """Train on `train_dataset`, stop early on `eval_dataset`; continues a run that was cut off.

        Of the training examples whose ids are in `teacher`, what it thought is learned instead of their words. The
        `completions` are trained on among them, in the base's fill-in-the-middle tokens.

        Raises:
            InputError: no example fits into `max_seq_len`, the time budget is too short for a step, or the base has no
                tokens for `completions`.
            RefusedError: the loss diverged.
        """
        config = self.config
        if num_epochs is not None:
            config = config.model_copy(update={"num_epochs": num_epochs})
        return self._supervised(self.reading.examples(train_dataset, eval_dataset, teacher or {}, completions), config)

    def _supervised(
        self, data: SupervisedData, config: FineTuneConfig, *, measured: Sequence[TokenizedExample] = ()
    ) -> TrainingResult:
        """Supervised training from start to result; the loss on the `measured` examples is taken before and after."""
        start, initialisation = self.group.broadcast(self.begin)
        trainee = self.load_trainee(start, config)
        path = self.folder / SCHEDULE
        known = self.group.broadcast(lambda: Schedule.load(path) if path.exists() else None)
        schedule = known or self._schedule(trainee, data, config)  # measured anew, a resumed run would take other steps
        loss_before = self._loss_on(measured, trainee)
        objective = SupervisedObjective()
        if any(example.teacher for example in data.train):
            objective = DistillationObjective(config.distillation)
        task = Task(data.train, data.held_out, objective)
        result = self._run(trainee, task, config, schedule, data.asked)
        record = TrainingRecord(
            **self._recorded(config, result),
            initialisation=initialisation,
            n_too_long=data.n_too_long,
            trained_first_loss=loss_before,
            trained_last_loss=self._loss_on(measured, trainee),
        )
        return self.group.broadcast(lambda: self._finish(trainee, start, record))

    def load_trainee(self, start: Path, config: FineTuneConfig) -> Any:
        """The base with the adapter in `start`, ready to be trained."""
        make = self.backend.trainee.from_adapter
        if config.sharded:  # which only torch knows, and `check_processes` has seen to that
            return make(self.base.folder, start, config, sharded=True)
        return make(self.base.folder, start, config)

    def _loss_on(self, examples: Sequence[TokenizedExample], trainee: Any) -> float | None:
        """Nats per token on `examples`, None where there are none; they may be many, so cancelling is heard meanwhile."""
        micro = MicroBatches.of(self.config, self._emit, self.group)
        sums = TokenSums()
        for first in range(0, len(examples), EXAMPLES_AT_A_TIME):
            if cancelled := cancellation(self.cancel, self.group):
                raise cancelled
            sums += micro.evaluate(trainee, SupervisedObjective(), examples[first : first + EXAMPLES_AT_A_TIME])
        return sums.mean_loss if examples else None

    def _run(
        self, trainee: Any, task: Task, config: FineTuneConfig, schedule: Schedule, asked: Sequence[Asked] = ()
    ) -> LoopResult:
        """The loop, with the schedule told and kept, and sample answers to what is `asked`."""
        self.group.broadcast(lambda: schedule.save(self.folder / SCHEDULE))
        self._emit(schedule.event)
        generator = self.backend.generator(trainee.model, self.tokenizer.end_of_turn_id)
        prompts = [self.tokenizer.encode_prompt(chat) for _, chat in asked]

        def sample() -> list[tuple[str, str]]:
            if not prompts:
                return []
            replies = generator.generate(prompts, SAMPLE_TOKENS)
            return [(title, self.tokenizer.decode(reply)) for (title, _), reply in zip(asked, replies, strict=True)]

        around = Surroundings(self._emit, sample, self.group, self.cancel)
        return run_loop(trainee, task, config, schedule, self.folder, around)

    def _recorded(self, config: FineTuneConfig, result: LoopResult) -> JsonObject:
        """What every training's record holds."""
        return {
            "config": config.model_dump(mode="json"),
            "base": self.base.name,
            "backend": self.backend.name,
            "schedule": result.schedule,
            "best_step": result.best_step,
            "history": result.history,
        }

    def _finish(self, trainee: Any, start: Path, record: TrainingRecord) -> TrainingResult:
        """Leave the result in the work folder and remove what only a resumed run would need."""
        save_file(dict(trainee.adapter()), self.folder / WEIGHTS)
        shutil.copyfile(start / CONFIG, self.folder / CONFIG)
        first = start / INITIAL  # there, the start is a result of an earlier training
        if not first.exists():
            first = start / WEIGHTS
        link_or_copy(first, self.folder / INITIAL)
        residuals = [path.name for path in start.glob("residual*.safetensors")]  # where it is held packed, two
        for left in self.folder.glob("residual*.safetensors"):
            if left.name not in residuals:
                left.unlink()  # an earlier training's, in the same folder
        for name in residuals:
            link_or_copy(start / name, self.folder / name)
        if self.tokenizer.chat_template != self.base.chat_template:
            atomic_write(self.folder / CHAT_TEMPLATE, self.tokenizer.chat_template)
        record.write(self.folder)
        # only now: a run that is killed before the record is written continues from them
        for checkpoint in self.folder.glob("step-*"):
            shutil.rmtree(checkpoint)
        for reference in self.folder.glob("reference-*.json"):
            reference.unlink()
        return TrainingResult.of(self.folder, record)

    def plan(
        self,
        train_dataset: Sequence[RAFTExample],
        eval_dataset: Sequence[RAFTExample],
        completions: Sequence[CompletionExample] = (),
    ) -> TrainingPlan:
        """What `train` would do: examples, tokens, steps and seconds, by a probe in these processes, and the memory of each of
        them; nothing is trained."""
        data = self.reading.examples(train_dataset, eval_dataset, completions=completions)
        start, _ = self.group.broadcast(self.begin)
        schedule = self._schedule(self.load_trainee(start, self.config), data, self.config)
        needed = self.backend.memory_needed(self.base.folder, self.config)
        return TrainingPlan(
            **dataclasses.asdict(schedule.event),
            train_examples=len(data.train),
            train_tokens=sum(len(example.ids) for example in data.train),
            supervised_tokens=sum(example.n_supervised for example in data.train),
            longest_example_tokens=max(len(example.ids) for example in data.train),
            n_too_long=data.n_too_long,
            processes=self.group.size,
            gradient_checkpointing=self.config.gradient_checkpointing,
            memory_bytes=needed,
            memory_range_bytes=memory_range(needed),
        )

    def _schedule(self, trainee: Any, data: SupervisedData, config: FineTuneConfig) -> Schedule:
        speed = probe_speed(trainee, data.train, config, sft_loss, group=self.group, emit=self._emit)
        n_eval_tokens = n_packed_tokens(data.held_out, config.micro_batch_size)
        return self.group.broadcast(lambda: lay_schedule(data.train, n_eval_tokens, speed, config))


def check_processes(config: FineTuneConfig, group: Group) -> None:
    """Raises `InputError` where the settings ask for other processes than those of `group`."""
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


def within_context(config: FineTuneConfig, base: Base) -> FineTuneConfig:
    """`config` with examples no longer than the base reads exactly (Phi-3: 2,047 tokens)."""
    if not base.context_length:  # not known
        return config
    return config.model_copy(update={"max_seq_len": min(config.max_seq_len, base.context_length)})


if __name__ == "__main__":
    import sys

    from ai_forge.training.command import main

    sys.exit(main())
