"""A whole training, ours against TRL's SFTTrainer on PEFT's LoRA in bitsandbytes' NF4: tokens a second and peak memory.

    python bench/bench_sft.py                               SmolLM2-135M, this repository's own examples
    python bench/bench_sft.py --base FOLDER --steps 8       another base; on CUDA where there is one
    python bench/bench_sft.py --shape 8b --rank 16 --max-seq-len 2048      random weights in the shape of Llama 3.1 8B (or 3b)

Both read the same examples in the same order, with the same supervised tokens, the same start of the adapters (TRL's PEFT loads
ours), NF4 with double quantization, 8-bit AdamW and learning rates. Correctness first: step by step their losses must agree.
Each trainer runs in a process of its own, so that peak memory is its own, and they take turns, a step each. A step of eight
examples is one micro batch for ours, which shares the prompts in it, and four for TRL, which pads less that way.

Tokens are those of the examples, each counted whole: what a shared prompt saves shows as speed; how many ours computes stands
beside them. The examples are those that a training on all of them reads first, so prompts are shared as often as there.
Seconds are from the start of a step's first forward pass to the end of its optimizer step; the first step warms up and is
not counted.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from ai_forge.config import ALL_LINEAR_MODULES, FineTuneConfig
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.events import Event, PlanMade, StepLogged
from ai_forge.model_files.base import Base
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.training.tokens.packing import TokenizedExample, n_packed_tokens, step_order, tokenize, tokenize_all
from ai_forge.workspace import Workspace
from measure import ROUNDS, own_examples, record

TOLERANCE = 0.02
"""Largest relative difference of two losses of the same step: bf16 products in another order, and NF4 scales that each rounds."""


SHAPES = {
    "3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
}
"""Of Llama 3.2 3B and Llama 3.1 8B, where they differ."""


def random_base(folder: Path, like: Path, **shape: int) -> Path:
    """A Llama of that shape with random bf16 weights in `folder`, a file a layer; tokenizer and template are those of `like`."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, LlamaConfig

    common = {"vocab_size": 128256, "num_key_value_heads": 8, "max_position_embeddings": 8192}
    config = LlamaConfig(**(common | shape), dtype="bfloat16", tie_word_embeddings=False)
    with torch.device("meta"):
        names = {name: value.shape for name, value in AutoModelForCausalLM.from_config(config).state_dict().items()}
    shutil.copytree(like, folder, ignore=shutil.ignore_patterns("*.safetensors*", "*.gguf", "config.json"))
    config.save_pretrained(folder)
    files = {name: f"model-{'-'.join(name.split('.')[1:3])}.safetensors" for name in names}
    for file in dict.fromkeys(files.values()):
        drawn = {name: 0.02 * torch.randn(names[name], dtype=torch.bfloat16) for name in names if files[name] == file}
        save_file(
            {k: torch.ones_like(v) if "norm" in k else v for k, v in drawn.items()}, folder / file, {"format": "pt"}
        )
    index = {"metadata": {}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


class Turns:
    """The side of a trainer: it waits for its turn before each step and tells what came out after."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def wait(self) -> None:
        """Until it is this trainer's turn."""
        self._pipe.recv()

    def tell(self, loss: float, seconds: float) -> None:
        """The step is done."""
        self._pipe.send({"loss": loss, "seconds": seconds, "peak_bytes": peak_bytes()})


def peak_bytes() -> int:
    """The most memory that this process held: on the device where there is one."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def steps_of(rows: Sequence[TokenizedExample], config: FineTuneConfig) -> list[list[int]]:
    """The examples of each step, as our trainer reads them."""
    contexts = [row.context for row in rows]
    per_step = config.micro_batch_size * config.grad_accum_steps
    return [step_order(contexts, per_step, step, config.seed) for step in range(int(config.max_steps or 0))]


def ours(
    pipe: Connection, config: FineTuneConfig, base: Base, folder: Path, start: Path, examples: list[RAFTExample]
) -> None:
    """Train with `FineTuneTrainer`; it finds its start in the workspace."""
    whole = config.micro_batch_size * config.grad_accum_steps
    config = config.model_copy(update={"micro_batch_size": whole, "grad_accum_steps": 1})
    turns = Turns(pipe)
    rows, _ = tokenize_all(examples, ChatTokenizer(base.folder), config.max_seq_len)
    computed = [
        n_packed_tokens([rows[i] for i in chosen], config.micro_batch_size) for chosen in steps_of(rows, config)
    ]

    def hear(event: Event) -> None:
        if isinstance(event, StepLogged):  # its speed leaves evaluations and checkpoints out
            turns.tell(event.loss, computed[event.step - 1] / event.tokens_per_s)
            if event.step < event.n_steps:
                turns.wait()
        elif isinstance(event, PlanMade):
            turns.wait()

    trainer = FineTuneTrainer(config, base=base, folder=folder / "ours", workspace=Workspace.open(folder), emit=hear)
    (folder / "ours").mkdir()
    trainer.train(examples, examples[:1])


def theirs(
    pipe: Connection, config: FineTuneConfig, base: Base, folder: Path, start: Path, examples: list[RAFTExample]
) -> None:
    """Train with `SFTTrainer` from the adapter in `start`."""
    import torch
    from datasets import Dataset
    from peft import PeftModel, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    rows, _ = tokenize_all(examples, ChatTokenizer(base.folder), config.max_seq_len)
    order = [i for chosen in steps_of(rows, config) for i in chosen]
    data = Dataset.from_list(
        [
            {
                "input_ids": list(rows[i].ids),
                "labels": [-100] * rows[i].n_prompt + list(rows[i].ids[rows[i].n_prompt :]),
            }
            for i in order
        ]
    )
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["lm_head"],
    )
    model = AutoModelForCausalLM.from_pretrained(base.folder, quantization_config=four_bits, dtype=torch.bfloat16)
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model = PeftModel.from_pretrained(model, start, is_trainable=True)
    turns = Turns(pipe)

    class Waits(TrainerCallback):  # type: ignore[misc]
        began = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            turns.wait()
            self.began = time.perf_counter()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                turns.tell(float(logs["loss"]), time.perf_counter() - self.began)

    arguments = SFTConfig(
        output_dir=str(folder / "theirs"),
        per_device_train_batch_size=config.micro_batch_size,
        gradient_accumulation_steps=config.grad_accum_steps,
        max_steps=int(config.max_steps or 0),
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        optim="adamw_bnb_8bit",
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False,
        train_sampling_strategy="sequential",
        max_length=config.max_seq_len,
        dataset_kwargs={"skip_prepare_dataset": True},
        disable_tqdm=True,
    )
    tokenizer = AutoTokenizer.from_pretrained(base.folder)
    SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer, callbacks=[Waits()]).train()


def device_name() -> str:
    """The GPU, or the threads of the CPU."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"CPU, {torch.get_num_threads()} threads"


def read_first(config: FineTuneConfig, base: Base) -> list[RAFTExample]:
    """Those that the first steps of a training on all of this repository's own examples read."""
    tokenizer = ChatTokenizer(base.folder)
    rows = [(example, tokenize(example, tokenizer)) for example in own_examples()]
    fitting = [(example, row) for example, row in rows if len(row.ids) <= config.max_seq_len]
    order = steps_of([row for _, row in fitting], config)
    return [fitting[i][0] for chosen in order for i in chosen]


def race(
    config: FineTuneConfig, base: Base, folder: Path, start: Path, examples: list[RAFTExample]
) -> dict[str, list[dict[str, Any]]]:
    """What each trainer told of each step."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    told: dict[str, list[dict[str, Any]]] = {}
    processes = []
    for name, trainer in (("ai_forge", ours), ("trl", theirs)):
        here, there = context.Pipe()
        process = context.Process(target=trainer, args=(there, config, base, folder, start, examples))
        process.start()
        there.close()
        pipes[name], told[name] = here, []
        processes.append(process)
    for step in range(int(config.max_steps or 0)):
        for name, pipe in pipes.items():
            pipe.send("your turn")
            told[name].append(pipe.recv())
            print(f"  step {step + 1}, {name}: {told[name][-1]}", file=sys.stderr, flush=True)
    for process in processes:
        process.terminate()
    return told


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="SmolLM2-135M-Instruct")
    parser.add_argument("--shape", choices=SHAPES, help="random weights of this shape instead")
    parser.add_argument("--steps", type=int, default=ROUNDS + 1)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--max-seq-len", type=int, default=1024)
    parser.add_argument("--name", default="sft", help="of the file in bench/results")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        base = resolve_base(given.base, cache_dir=Path(tempfile.gettempdir()) / "ai-forge-bench")
        if given.shape:
            whole = random_base(folder / given.shape, base.folder, **SHAPES[given.shape])
            base = resolve_base(str(whole), cache_dir=folder / "cache")
        config = FineTuneConfig(
            base_model=base.name,
            init_method="lora",
            quantization="nf4",
            rank=given.rank,
            alpha=given.rank,
            target_modules=ALL_LINEAR_MODULES,
            max_seq_len=given.max_seq_len,
            max_steps=given.steps,
            eval_steps=1000,
            warmup_ratio=0.0,
            replay_share=0.0,
        )
        examples = read_first(config, base)
        workspace = Workspace.open(folder)
        starting = FineTuneTrainer(config, base=base, folder=folder / "start", workspace=workspace)
        starting.compute_pissa_init()
        start = workspace.stage_folder("initialise", starting.initialisation_key)
        told = race(config, base, folder, start, examples)
        rows, _ = tokenize_all(examples, ChatTokenizer(base.folder), config.max_seq_len)
    losses = {name: [step["loss"] for step in steps] for name, steps in told.items()}
    for a, b in zip(*losses.values(), strict=True):
        assert abs(a - b) <= TOLERANCE * b, losses
    batches = [[rows[i] for i in chosen] for chosen in steps_of(rows, config)]
    tokens = [sum(len(row.ids) for row in batch) for batch in batches]
    computed = [n_packed_tokens(batch, len(batch)) for batch in batches]
    speeds = {
        name: round(statistics.median(n / step["seconds"] for n, step in list(zip(tokens, steps, strict=True))[1:]))
        for name, steps in told.items()
    }
    record(
        given.name,
        {
            "base": base.name,
            "device": device_name(),
            "rank": config.rank,
            "batch": [config.micro_batch_size, config.grad_accum_steps],
            "tokens_of_a_step": round(statistics.mean(tokens)),
            "computed_tokens_of_a_step": round(statistics.mean(computed)),
            "steps": given.steps,
            "loss": {name: [round(loss, 4) for loss in curve] for name, curve in losses.items()},
            "tokens_per_s": speeds,
            "ratio": round(speeds["ai_forge"] / speeds["trl"], 2),
            "peak_gb": {name: round(steps[-1]["peak_bytes"] / 1e9, 2) for name, steps in told.items()},
        },
    )


if __name__ == "__main__":
    main()
