"""The pipeline of `--recipe handbook`: an agent's rules baked into weights, by the same stages as a repository's model.

    .agent/fine-tuning-*  handbook → train → merge → evaluate (compliance probes, base against tuned) → report
                                                └→ export → parity → deploy

It differs from `Pipeline` by its data, by how it judges and by what the model is called, so that a repository's own model and
its handbook's stand side by side. Nothing is mined and nothing retrieved. Wherever the model is asked, it is without a system
message; the one in the Modelfile is the sentence that its template puts in by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_forge.data_pipeline.datasets.formats import read_dataset
from ai_forge.data_pipeline.datasets.storage import read_jsonl
from ai_forge.data_pipeline.handbook.agent_folder import find_agent_folder
from ai_forge.data_pipeline.handbook.handbook import COMPANIONS, FINE_TUNING_FILE, HELD_OUT_FILE, PROBES_FILE
from ai_forge.data_pipeline.schemas import Document
from ai_forge.data_pipeline.schemas.instructions import AlpacaPair
from ai_forge.data_pipeline.schemas.probes import ComplianceProbe
from ai_forge.data_pipeline.source.repository import Repository
from ai_forge.errors import InputError
from ai_forge.pipeline.repository import Pipeline
from ai_forge.pipeline.stages import Stage
from ai_forge.prompting.chat_templates import ALPACA_SYSTEM
from ai_forge.prompting.prompt import Message
from ai_forge.workspace import atomic_write, file_sha256, stage_key

if TYPE_CHECKING:
    from ai_forge.judge.compliance import Compliance
    from ai_forge.judge.verdict import Verdict
    from ai_forge.prompting.chat import ChatTokenizer
    from ai_forge.training.record import TrainingResult


class HandbookPipeline(Pipeline):
    """A handbook, one resolved configuration; see `Pipeline`."""

    recipe = "handbook"

    # -- data ---------------------------------------------------------------------------------------------------

    @cached_property
    def agent_folder(self) -> Path:
        """The agent folder with the files that `ai-forge handbook` wrote.

        Raises:
            InputError: there is no such folder, or it has no pairs, or none that are held out.
        """
        folder = find_agent_folder(self.path)
        for name in (FINE_TUNING_FILE, HELD_OUT_FILE):
            if not (folder / name).is_file():
                raise InputError(
                    f"{folder} has no {name}.", f"write it: ai-forge handbook {self.path}, with some rules held out."
                )
        return folder

    @cached_property
    def repository(self) -> Repository:
        """The folder that holds the agent folder; none of its code is read."""
        root = self.agent_folder.parent
        return Repository(root, root.name or "repository", None, is_git=False, files=())

    @cached_property
    def model_name(self) -> str:
        """What the deployed model is called."""
        return f"{super().model_name}-handbook"

    @cached_property
    def system_prompt(self) -> str:  # type: ignore[override]
        """The sentence with which Alpaca's template begins; the base's chat template gets none."""
        return ALPACA_SYSTEM if self.settings.training.prompt_template == "alpaca" else ""

    @cached_property
    def _snapshot(self) -> str:
        folder = self.agent_folder
        return stage_key(**{name: file_sha256(folder / name) for name in COMPANIONS if (folder / name).is_file()})

    @cached_property
    def dataset(self) -> Stage:
        """The pairs and probes as they were when training began."""

        def build(folder: Path) -> dict[str, Any]:
            for name in COMPANIONS:
                if (self.agent_folder / name).is_file():
                    atomic_write(folder / name, (self.agent_folder / name).read_bytes())
            sides = {"train": FINE_TUNING_FILE, "valid": HELD_OUT_FILE}
            counts = {side: len(_pairs(folder / name)) for side, name in sides.items()}
            return {**counts, "probes": len(_probes(folder / PROBES_FILE))}

        return self._stage("handbook", build, files=self._snapshot)

    @cached_property
    def probes(self) -> list[ComplianceProbe]:
        """The compliance probes."""
        return _probes(self.dataset.folder / PROBES_FILE)

    @cached_property
    def held_out_pairs(self) -> list[AlpacaPair]:
        """The pairs of the rules that are not trained on."""
        return _pairs(self.dataset.folder / HELD_OUT_FILE)

    # -- model --------------------------------------------------------------------------------------------------

    def require_template(self) -> None:
        """Either template will do."""

    def fit(self, folder: Path) -> TrainingResult:
        """Train in `folder`, or continue there."""
        from ai_forge.training.distributed.launcher import run_trainer
        from ai_forge.training.handbook import HandbookTrainer

        data, parts = (_pairs(self.dataset.folder / FINE_TUNING_FILE), self.held_out_pairs), self._trainer_parts(folder)
        result: TrainingResult = run_trainer(
            HandbookTrainer, self.settings.training, "train_pairs", *data, emit=self.emit, **parts
        )
        return result

    # -- measurements -------------------------------------------------------------------------------------------

    @cached_property
    def evaluate(self) -> Stage:
        """Base and tuned model on the probes: `compliance.json`."""
        if not self.probes:
            raise InputError(f"{self.agent_folder} has no probes: none of its rules can be checked by a machine.")
        merge, settings = self.merge, self.settings.judge

        def build(folder: Path) -> dict[str, Any]:
            from ai_forge.judge.compliance import ask_both
            from ai_forge.prompting.chat import ChatTokenizer

            untrained = ChatTokenizer(self.base.folder, "chat" if self.base.chat_template else "alpaca")
            made = ask_both(
                self.probes,
                lambda prompts: self._answers(self.base.folder, untrained, prompts),
                lambda prompts: self._answers(self.tuned_folder, self.tokenizer, prompts),
            )
            atomic_write(folder / "compliance.json", made.model_dump_json(indent=1))
            passed = {"base": [a.base_passes for a in made.answers], "tuned": [a.tuned_passes for a in made.answers]}
            return {"probes": len(made.answers), **{f"kept by {who}": sum(rows) for who, rows in passed.items()}}

        longest = settings.max_new_tokens
        return self._stage("compliance", build, merge=merge.key, data=self.dataset.key, longest=longest)

    def _answers(self, folder: Path, tokenizer: ChatTokenizer, prompts: Sequence[str]) -> list[str]:
        """Greedy answers of the model in `folder`, asked without a system message."""
        from ai_forge.training.backends import load_backend

        model = load_backend(self.settings.training.backend).generator.load(folder, tokenizer.end_of_turn_id)
        encoded = [tokenizer.encode_prompt(_asked(prompt)) for prompt in prompts]
        return [tokenizer.decode(reply) for reply in model.generate(encoded, self.settings.judge.max_new_tokens)]

    @cached_property
    def compliance(self) -> Compliance:
        """The content of `evaluate`."""
        from ai_forge.judge.compliance import Compliance

        return Compliance.model_validate_json((self.evaluate.folder / "compliance.json").read_text(encoding="utf-8"))

    @cached_property
    def verdict(self) -> Verdict:
        """Are the rules kept?"""
        from ai_forge.judge.compliance import judge_compliance

        return judge_compliance(self.compliance, self.settings.judge)

    @cached_property
    def report(self) -> Path:
        """`compliance.md` in the run's folder."""
        from ai_forge.judge.compliance import compliance_report
        from ai_forge.training.record import TrainingRecord

        compliance, pairs = self.compliance, self.dataset.counts
        training = TrainingRecord.read(self.train.folder)
        figures = {
            "base": f"{self.base.name} ({self.base.origin.description})",
            "pairs": f"{pairs['train']} trained on, {pairs['valid']} of other rules held out",
            "loss on the pairs": f"{training.trained_first_loss:.3f} → {training.trained_last_loss:.3f} nats per token",
            "steps": str(training.schedule.n_steps),
        }
        path = self.run_folder / "compliance.md"
        atomic_write(path, compliance_report(self.verdict, compliance, figures))
        return path

    @property
    def held_out_files(self) -> frozenset[str]:
        """None: its pairs are held out by rule, and the file of preference pairs has only rules that are trained on."""
        return frozenset()

    @property
    def first_question(self) -> str:
        """The first probe, or the first instruction that was held out."""
        return self.probes[0].prompt if self.probes else self.held_out_pairs[0].instruction

    def chat_about(self, question: str) -> tuple[list[Message], tuple[Document, ...]]:
        """The question alone: the rules are in the weights."""
        return _asked(question), ()

    def parity_chats(self) -> list[list[Message]]:
        """Probes, then held-out instructions."""
        asked = [probe.prompt for probe in self.probes] + [pair.instruction for pair in self.held_out_pairs]
        return [_asked(prompt) for prompt in asked[: self.settings.export.parity_prompts]]


def _asked(prompt: str) -> list[Message]:
    return [{"role": "user", "content": prompt}]


def _pairs(path: Path) -> list[AlpacaPair]:
    return [record for record in read_dataset(path, "alpaca").records if isinstance(record, AlpacaPair)]


def _probes(path: Path) -> list[ComplianceProbe]:
    return read_jsonl(path, ComplianceProbe) if path.is_file() else []
