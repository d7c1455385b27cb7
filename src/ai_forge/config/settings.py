"""`Settings`: one frozen model per concern, put together. Defaults live in these models and nowhere else."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ai_forge.config.data import MinerSettings, SplitSettings, SynthesisSettings, ValidatorSettings
from ai_forge.config.guardian import GuardianSettings
from ai_forge.config.models import load_models
from ai_forge.config.service import ServiceSettings
from ai_forge.config.training import FineTuneConfig


class JudgeSettings(BaseModel):
    """How the tuned model is measured against the base."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_questions: int = Field(48, ge=4, le=5000, description="held-out questions that are answered at the most")
    interval_width: float = Field(
        0.15, gt=0, le=2, description="a difference known this closely needs no more questions"
    )
    time_budget_s: float = Field(150.0, gt=0, description="time for answers after which no further questions are asked")
    n_worked_examples: int = Field(2, ge=0, le=8, description="worked examples in the prompt of the base's best rival")
    max_new_tokens: int = Field(112, ge=8, le=4096, description="longest answer")
    retrieved_documents: int = Field(3, ge=1, le=20, description="blocks shown with a question")
    code_bytes: int = Field(24_000, ge=1000, description="held-out code read for perplexity per byte")
    forgetting_budget: float = Field(0.10, ge=0, le=10, description="how much worse held-out code perplexity may get")
    general_code_budget: float = Field(0.15, ge=0, le=10, description="how much worse general code perplexity may get")
    general_chat_budget: float = Field(0.20, ge=0, le=10, description="how much worse general chat perplexity may get")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="level of the intervals")
    seed: int = Field(42, ge=0, description="choice of questions and bootstrap")


class ExportSettings(BaseModel):
    """What is written for the runtimes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantization: Literal["f16", "q4_k_m", "q5_k_m", "q6_k", "q8_0"] = Field(
        "q4_k_m", description="type of the deployed GGUF"
    )
    parity_prompts: int = Field(20, ge=1, le=500, description="prompts compared between trainer and GGUF")
    parity_tokens: int = Field(32, ge=1, le=512, description="greedy tokens compared on each")


class RuntimeSettings(BaseModel):
    """Where and how the model is served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # `auto` decides when it is deployed, not when the settings are read: Ollama may be started meanwhile
    kind: Literal["auto", "ollama", "embedded"] = Field("auto", description="auto: Ollama if it answers, else embedded")
    ollama_host: str = Field("http://127.0.0.1:11434", description="where Ollama listens; OLLAMA_HOST is read too")
    embedder: str = Field(
        "auto",
        description="with what questions are found: auto (minilm where it is installed), none, minilm, ollama:NAME, a folder",
    )
    persona: str | None = Field(
        None, description="a YAML file with the SYSTEM text and stop words that the model is served with"
    )
    num_ctx: int = Field(4096, ge=256, le=1_048_576, description="context length of the deployed model, tokens")
    slots: int = Field(
        4, ge=1, le=64, description="answers that the embedded runtime gives at once; each takes a context's memory"
    )
    num_predict: int = Field(256, ge=1, le=32768, description="longest answer, tokens")
    temperature: float = Field(0.0, ge=0, le=2, description="0 is greedy")
    top_k: int = Field(40, ge=1, le=1000, description="sampling: most likely tokens considered")
    top_p: float = Field(0.9, gt=0, le=1, description="sampling: probability mass considered")
    keep_versions: int = Field(3, ge=1, le=100, description="deployed versions kept for rollback")
    keep_questions: bool = Field(
        True, description="whether what is asked is kept in the workspace, for `ai-forge questions`"
    )
    deploy: Literal["if-better", "always", "never"] = Field("if-better", description="when `run` deploys what it made")


class ConductorSettings(BaseModel):
    """How jobs are queued and kept. No run depends on these: they are left out of its record and its id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_url: str | None = Field(
        None, description="postgresql://… for several machines on one queue; a SQLite file in the workspace otherwise"
    )
    trainings: int = Field(1, ge=1, le=64, description="trainings at a time; the others wait")
    memory_retries: int = Field(2, ge=0, le=10, description="how often a job that ran out of memory is tried again")
    keep_jobs_days: float = Field(
        30.0, gt=0, description="finished jobs that are older are forgotten, with their uploads"
    )
    keep_jobs_bytes: int = Field(
        20_000_000_000, ge=0, description="disk for the uploads and logs of finished jobs; the oldest go first"
    )


class Settings(BaseModel):
    """Everything that can be set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    miner: MinerSettings = MinerSettings()
    split: SplitSettings = SplitSettings()
    synthesis: SynthesisSettings = SynthesisSettings()
    validator: ValidatorSettings = ValidatorSettings()
    training: FineTuneConfig = FineTuneConfig(base_model=load_models().default)
    judge: JudgeSettings = JudgeSettings()
    export: ExportSettings = ExportSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    conductor: ConductorSettings = ConductorSettings()
    service: ServiceSettings = ServiceSettings()
    guardian: GuardianSettings = GuardianSettings()
