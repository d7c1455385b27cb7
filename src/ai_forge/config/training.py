"""`FineTuneConfig`: every setting of a training run. The defaults live here; `pissa_config.yaml` explains them."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

ATTENTION_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_LINEAR_MODULES = (*ATTENTION_MODULES, "gate_proj", "up_proj", "down_proj")

PreferenceLoss = Literal["sigmoid", "sigmoid_norm", "ipo"]
InitMethod = Literal["pissa", "lora", "loftq"]
Quantization = Literal["nf4", "none"]
BackendChoice = Literal["auto", "torch", "mlx"]
PromptTemplate = Literal["chat", "alpaca"]
ALL_LINEAR = "all-linear"


def _is_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    return text


def _on_or_off(value: object) -> object:
    if isinstance(value, bool):
        return "on" if value else "off"
    return value


GradientCheckpointing = Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_or_off)]
"""YAML reads `on` and `off` as true and false."""
Layers = Annotated[str, Field(min_length=1), AfterValidator(_is_expression)]
"""The end of a layer's full name, or a regular expression for it, as PEFT's patterns."""


class FineTuneConfig(BaseModel):
    """Settings of one fine-tuning, frozen. The schedule ends at the first of epochs, steps and time budget."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_model: str = Field("Llama-3.2-3B-Instruct", min_length=1, description="the base, named as `bases.py` reads it")

    backend: BackendChoice = Field(
        "auto", description="array library; auto: MLX on Apple Silicon if installed, else torch"
    )

    init_method: InitMethod = Field("pissa", description="how adapters start, see training/adapters/initialisation.py")
    quantization: Quantization = Field("nf4", description="how the frozen weights are held; nf4 with pissa is QPiSSA")
    rank: int = Field(64, ge=1, le=1024, description="rank of each adapter")
    alpha: float = Field(128.0, gt=0, le=4096, description="adapter scale: alpha / rank")
    use_rslora: bool = Field(False, description="adapter scale alpha / √rank instead (rsLoRA)")
    rank_pattern: dict[Layers, Annotated[int, Field(ge=1, le=1024)]] = Field({}, description="other ranks, by layer")
    alpha_pattern: dict[Layers, Annotated[float, Field(gt=0, le=4096)]] = Field(
        {}, description="other alphas, by layer"
    )
    target_modules: tuple[str, ...] = Field(
        ATTENTION_MODULES, min_length=1, description="layers that get one, or all-linear"
    )
    svd_oversampling: int = Field(
        16, ge=0, le=256, description="columns of the randomised range finder beyond the rank"
    )
    svd_tolerance: float = Field(
        1e-3, gt=0, le=0.1, description="relative distance from the best rank-r error to stop at"
    )
    quantization_iterations: int = Field(1, ge=1, le=50, description="rounds of quantizing and refitting the adapter")
    nf4_block_size: Literal[32, 64, 128, 256] = Field(64, description="weights that share one NF4 scale")

    learning_rate: float = Field(2e-4, gt=0, le=1.0, description="peak of the schedule")
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="share of the steps with a rising learning rate")
    weight_decay: float = Field(0.0, ge=0, le=1, description="decoupled (AdamW)")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this global norm")
    micro_batch_size: int = Field(2, ge=1, le=1024, description="examples in one forward pass, packed without padding")
    grad_accum_steps: int = Field(4, ge=1, le=1024, description="forward passes in one optimizer step")
    gradient_checkpointing: GradientCheckpointing = Field(
        "auto", description="compute activations again in the backward pass; auto: where they would not fit in memory"
    )
    nproc: int = Field(1, ge=1, le=64, description="processes that share each step, on one machine (torch)")
    sharded: bool = Field(
        False, description="hold the base's layers in pieces, one a process (FSDP), where no device holds it whole"
    )
    max_seq_len: int = Field(2048, ge=64, le=131072, description="tokens; longer examples are left out and counted")

    reasoning_weight: float = Field(1.0, ge=0, le=100, description="weight of the reasoning's tokens in the loss")
    citation_weight: float = Field(1.0, ge=0, le=100, description="weight of the citations' tokens in the loss")
    answer_weight: float = Field(1.0, gt=0, le=100, description="weight of the final answer's tokens in the loss")

    distillation: float = Field(
        0.5,
        ge=0,
        le=1,
        description="weight of a writer's distribution against its words, in natural answers; 0: words alone",
    )
    prompt_template: PromptTemplate = Field(
        "chat", description="how the model is asked: the base's chat template or Alpaca's; exported with the model"
    )
    replay_share: float = Field(0.2, ge=0, lt=1, description="share of plain code among the training examples")
    replay_tokens: int = Field(128, ge=16, le=4096, description="tokens of one piece of plain code, at the most")

    num_epochs: int = Field(3, ge=1, le=1000, description="passes over the training examples, at the most")
    max_steps: int | None = Field(None, ge=1, description="optimizer steps, at the most")
    time_budget_s: float | None = Field(
        None, gt=0, description="seconds of training, at the most; the measured speed sets the steps"
    )
    eval_steps: int = Field(50, ge=1, description="steps between evaluations on held-out examples")
    eval_examples: int = Field(32, ge=1, description="held-out examples read by one evaluation")
    save_steps: int = Field(100, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, le=100, description="checkpoints that are kept")
    early_stopping_patience: int = Field(3, ge=1, description="evaluations without improvement before stopping")
    result_step: Literal["best", "last"] = Field(
        "best", description="whose adapter is the result; best: the lowest held-out loss; last: no early stopping"
    )
    sample_every: int = Field(0, ge=0, description="steps between sample answers; 0: none")
    memory_warn_fraction: float = Field(0.8, gt=0, le=1, description="share of memory in use that is warned about")
    seed: int = Field(42, ge=0, description="data order and random initialisation")

    preferences: str | None = Field(None, description="a file of preference pairs, for a second phase after training")
    dpo_loss: PreferenceLoss = Field("sigmoid", description="what is minimised on preference pairs")
    dpo_beta: float = Field(0.1, gt=0, le=10, description="how closely the reference is kept to")
    dpo_learning_rate: float = Field(2e-5, gt=0, le=1.0, description="peak of the schedule on preference pairs")
    dpo_epochs: int = Field(1, ge=1, le=100, description="passes over the preference pairs")

    @property
    def scaling(self) -> float:
        """What B·A is multiplied by, where no pattern says otherwise."""
        if self.use_rslora:
            root: float = self.rank**0.5  # keeps the size of the updates as the rank grows: arXiv 2312.03732
            return self.alpha / root
        return self.alpha / self.rank

    @property
    def method_name(self) -> str:
        """The field's name for the combination: PiSSA, QPiSSA, LoRA, QLoRA or LoftQ; rs- for rsLoRA."""
        name = {"pissa": "PiSSA", "lora": "LoRA", "loftq": "LoftQ"}[self.init_method]
        if self.quantization == "nf4" and self.init_method != "loftq":  # LoftQ always quantizes: its name says so
            name = f"Q{name}"
        return f"rs-{name}" if self.use_rslora else name

    @model_validator(mode="after")
    def _modules_are_distinct(self) -> "FineTuneConfig":
        if len(set(self.target_modules)) != len(self.target_modules):
            raise ValueError(f"target_modules names a layer twice: {', '.join(self.target_modules)}")
        if ALL_LINEAR in self.target_modules and len(self.target_modules) > 1:
            raise ValueError(f"target_modules is [{ALL_LINEAR}] or names layers, not both")
        return self

    @model_validator(mode="after")
    def _quantization_fits_the_method(self) -> "FineTuneConfig":
        if self.init_method == "loftq" and self.quantization == "none":
            raise ValueError("init_method loftq makes up for quantization: set quantization to nf4, or choose lora")
        # only these fit the adapter to what quantization lost: another round would change nothing for the others
        refits = self.quantization == "nf4" and self.init_method in ("pissa", "loftq")
        if self.quantization_iterations > 1 and not refits:
            raise ValueError("quantization_iterations above 1 need quantization nf4 and init_method pissa or loftq")
        return self
