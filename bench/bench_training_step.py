"""One training step on SmolLM2-135M: our adapter layers and packed batches against PEFT's LoRA on padded batches.

Same base, same rank and layers, same examples and supervised tokens, bf16, forward and backward. Correctness first: both
start as the same function, so both must have the same loss.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import random

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ai_forge.config import ALL_LINEAR_MODULES, FineTuneConfig
from ai_forge.training.backends.torch_init import initialise
from ai_forge.training.bases import resolve_base
from ai_forge.training.losses import sft_loss
from ai_forge.training.packing import TokenizedExample, collate
from measure import interleaved, record

RANK = 64


def main() -> None:
    base = resolve_base("SmolLM2-135M-Instruct", cache_dir=Path(tempfile.gettempdir()) / "ai-forge-bench")
    draw = random.Random(0)
    examples = [
        TokenizedExample(tuple(draw.randrange(1000, 40000) for _ in range(n)), n - n * 3 // 10)
        for n in (260, 330, 400, 450)
    ]
    batch = collate(examples)
    n_tokens = batch.n_tokens
    config = FineTuneConfig(
        rank=RANK, alpha=RANK, init_method="lora", quantization="none", target_modules=ALL_LINEAR_MODULES
    )
    ours, _ = initialise(base.folder, config, batch)

    width = max(len(e.ids) for e in examples)
    ids = torch.tensor([list(e.ids) + [0] * (width - len(e.ids)) for e in examples])
    mask = torch.tensor([[1] * len(e.ids) + [0] * (width - len(e.ids)) for e in examples])
    labels = torch.tensor(
        [[-100] * e.n_prompt + list(e.ids[e.n_prompt :]) + [-100] * (width - len(e.ids)) for e in examples]
    )
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.bfloat16)
    theirs = get_peft_model(
        model, LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(ALL_LINEAR_MODULES), lora_dropout=0.0)
    )

    def our_step() -> float:
        loss = ours.forward_backward(batch, sft_loss, batch.n_supervised).mean_loss
        ours.discard_gradients()
        return loss

    def their_step() -> float:
        loss = theirs(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        theirs.zero_grad()
        return float(loss)

    a, b = our_step(), their_step()
    assert abs(a - b) < 0.02 * abs(b), (a, b)
    seconds = interleaved({"ai_forge": our_step, "peft_padded": their_step})
    record(
        "training_step",
        {
            "tokens": n_tokens,
            "loss": {"ai_forge": round(a, 4), "peft_padded": round(b, 4)},
            "tokens_per_s": {name: round(n_tokens / s) for name, s in seconds.items()},
            "ratio": round(seconds["peft_padded"] / seconds["ai_forge"], 2),
        },
    )


if __name__ == "__main__":
    main()
