"""`FineTuneConfig`: every setting of a training run. The defaults live here; `pissa_config.yaml` explains them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ATTENTION_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_LINEAR_MODULES = (*ATTENTION_MODULES, "gate_proj", "up_proj", "down_proj")

InitMethod = Literal["pissa", "lora"]
Quantization = Literal["nf4", "none"]


class FineTuneConfig(BaseModel):
    """Settings of one fine-tuning, frozen. The schedule ends at the first of epochs, steps and time budget."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_model: str = Field("Llama-3.2-3B-Instruct", min_length=1, description="the base, named as `bases.py` reads it")

    init_method: InitMethod = Field("pissa", description="pissa: leading singular triplets; lora: random A, zero B")
    quantization: Quantization = Field("nf4", description="how the frozen weights are held; nf4 with pissa is QPiSSA")
    rank: int = Field(64, ge=1, le=1024, description="rank of each adapter")
    alpha: float = Field(128.0, gt=0, le=4096, description="adapter scale: alpha / rank")
    target_modules: tuple[str, ...] = Field(ATTENTION_MODULES, min_length=1, description="linear layers that get one")
    svd_oversampling: int = Field(16, ge=0, le=256, description="extra columns of the randomised range finder")
    svd_tolerance: float = Field(1e-3, gt=0, le=0.1, description="power iterations stop at this relative gain")
    nf4_block_size: Literal[32, 64, 128, 256] = Field(64, description="weights that share one NF4 scale")

    learning_rate: float = Field(2e-4, gt=0, le=1.0, description="peak of the schedule")
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="share of the steps with a rising learning rate")
    weight_decay: float = Field(0.0, ge=0, le=1, description="decoupled (AdamW)")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this global norm")
    micro_batch_size: int = Field(2, ge=1, le=1024, description="examples in one forward pass, packed without padding")
    grad_accum_steps: int = Field(4, ge=1, le=1024, description="forward passes in one optimizer step")
    max_seq_len: int = Field(2048, ge=64, le=131072, description="tokens; longer examples are left out and counted")

    replay_share: float = Field(0.2, ge=0, lt=1, description="share of plain code among the training examples")
    replay_tokens: int = Field(128, ge=16, le=4096, description="tokens of one piece of plain code, at the most")

    num_epochs: int = Field(3, ge=1, le=1000, description="passes over the training examples, at the most")
    max_steps: int | None = Field(None, ge=1, description="optimizer steps, at the most")
    time_budget_s: float | None = Field(
        None, gt=0, description="seconds of training, at the most; a probe sets the steps"
    )
    eval_steps: int = Field(50, ge=1, description="steps between evaluations on held-out examples")
    eval_examples: int = Field(32, ge=1, description="held-out examples read by one evaluation")
    save_steps: int = Field(100, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, le=100, description="checkpoints that are kept")
    early_stopping_patience: int = Field(3, ge=1, description="evaluations without improvement before stopping")
    memory_warn_fraction: float = Field(0.8, gt=0, le=1, description="share of memory in use that is warned about")
    seed: int = Field(42, ge=0, description="data order and random initialisation")

    @property
    def scaling(self) -> float:
        """What B·A is multiplied by."""
        return self.alpha / self.rank

    @property
    def method_name(self) -> str:
        """The field's name for the combination: PiSSA, QPiSSA, LoRA or QLoRA."""
        name = {"pissa": "PiSSA", "lora": "LoRA"}[self.init_method]
        return f"Q{name}" if self.quantization == "nf4" else name

    @model_validator(mode="after")
    def _modules_are_distinct(self) -> "FineTuneConfig":
        if len(set(self.target_modules)) != len(self.target_modules):
            raise ValueError(f"target_modules names a layer twice: {', '.join(self.target_modules)}")
        return self
