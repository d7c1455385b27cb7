"""One training step on SmolLM2-135M: adapters on packed rows with shared prompts, against PEFT's LoRA on padded batches.

The same eight examples of this repository's own code, in the order in which a training reads them, the same base, rank,
layers, dtype and supervised tokens; forward and backward. Tokens are those of the examples, each counted whole: what a
shared prompt saves shows as speed. `ai_forge_alone` lays every example out on its own and shows what packing without
sharing does. Correctness first: all start as the same function, so all must have the same loss.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ai_forge.config import ALL_LINEAR_MODULES, FineTuneConfig
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.training.backends.base import TokenSums
from ai_forge.training.backends.torch_init import initialise
from ai_forge.training.backends.torch_model import compute_dtype, pick_device
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.losses import sft_loss
from ai_forge.training.tokens.packing import TokenizedExample, collate, step_order, tokenize_all
from measure import interleaved, own_examples, record

RANK = 64
N_EXAMPLES = 8


def real_examples(tokenizer: ChatTokenizer) -> list[TokenizedExample]:
    """The first step's examples of a training on this repository."""
    examples, _ = tokenize_all(own_examples(), tokenizer, 1024)
    return [examples[i] for i in step_order([example.context for example in examples], N_EXAMPLES, 0, seed=0)]


def main() -> None:
    base = resolve_base("SmolLM2-135M-Instruct", cache_dir=Path(tempfile.gettempdir()) / "ai-forge-bench")
    examples = real_examples(ChatTokenizer(base.folder))
    shared = collate(examples)
    alone = [collate([example]) for example in examples]
    n_tokens = sum(len(example.ids) for example in examples)
    n_supervised = shared.n_supervised
    config = FineTuneConfig(
        rank=RANK, alpha=RANK, init_method="lora", quantization="none", target_modules=ALL_LINEAR_MODULES
    )
    ours, _ = initialise(base.folder, config, alone[0])

    width = max(len(e.ids) for e in examples)
    ids = torch.tensor([list(e.ids) + [0] * (width - len(e.ids)) for e in examples])
    mask = torch.tensor([[1] * len(e.ids) + [0] * (width - len(e.ids)) for e in examples])
    labels = torch.tensor(
        [[-100] * e.n_prompt + list(e.ids[e.n_prompt :]) + [-100] * (width - len(e.ids)) for e in examples]
    )
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=compute_dtype(pick_device()))
    theirs = get_peft_model(
        model, LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(ALL_LINEAR_MODULES), lora_dropout=0.0)
    )

    def our_step() -> float:
        loss = ours.forward_backward(shared, sft_loss, n_supervised).mean_loss
        ours.discard_gradients()
        return loss

    def our_step_alone() -> float:
        sums = sum((ours.forward_backward(batch, sft_loss, n_supervised) for batch in alone), start=TokenSums())
        ours.discard_gradients()
        return sums.mean_loss

    def their_step() -> float:
        loss = theirs(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        theirs.zero_grad()
        return float(loss)

    contenders = {"ai_forge": our_step, "ai_forge_alone": our_step_alone, "peft_padded": their_step}
    losses = {name: step() for name, step in contenders.items()}
    assert max(losses.values()) < 1.02 * min(losses.values()), losses
    seconds = interleaved(contenders)
    record(
        "training_step",
        {
            "tokens": n_tokens,
            "computed_tokens": shared.n_tokens,
            "dtype": str(compute_dtype(pick_device())),
            "loss": {name: round(loss, 4) for name, loss in losses.items()},
            "tokens_per_s": {name: round(n_tokens / s) for name, s in seconds.items()},
            "ratio": round(seconds["peft_padded"] / seconds["ai_forge"], 2),
        },
    )


if __name__ == "__main__":
    main()
