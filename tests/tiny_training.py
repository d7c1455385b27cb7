"""Small examples and settings for training tiny models."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from ai_forge.config import ALL_LINEAR_MODULES, FineTuneConfig
from ai_forge.data_pipeline.schemas import Document, Fact, RAFTExample
from ai_forge.training.tokens.packing import Batch, TokenizedExample, collate

NAMES = ("parse", "load", "merge", "split", "check", "write", "count", "trim")


def tiny_config(**changes: Any) -> FineTuneConfig:
    """Rank 8 on every linear layer, six short steps, no code replayed, on torch whatever the machine."""
    settings: dict[str, Any] = {
        "base_model": "tiny",
        "backend": "torch",
        "rank": 8,
        "alpha": 16,
        "target_modules": ALL_LINEAR_MODULES,
        "learning_rate": 1e-2,
        "micro_batch_size": 2,
        "grad_accum_steps": 1,
        "max_steps": 6,
        "eval_steps": 2,
        "save_steps": 2,
        "eval_examples": 4,
        "max_seq_len": 512,
        "num_epochs": 100,
        "replay_share": 0.0,
    }
    return FineTuneConfig(**(settings | changes))


def random_examples(n: int, seed: int = 0, vocabulary: int = 512) -> list[TokenizedExample]:
    """Examples of 8–30 random tokens, the first few of each a prompt."""
    generator = random.Random(seed)
    made = []
    for _ in range(n):
        length = generator.randint(8, 30)
        ids = tuple(generator.randrange(3, vocabulary) for _ in range(length))
        made.append(TokenizedExample(ids, generator.randint(1, length - 2)))
    return made


def check_batch(n_tokens: int = 200) -> Batch:
    """A packed text of which every token is scored."""
    generator = random.Random(7)
    return collate([TokenizedExample(tuple(generator.randrange(3, 512) for _ in range(n_tokens)), 1)])


def document(name: str, line: int = 1) -> Document:
    code = f"def {name}(value):\n    return {name}_all([value])"
    return Document(
        block_id=f"id-{name}",
        name=name,
        citation=f"src/{name}.py:{line}-{line + 1}",
        language="python",
        text=code,
        path=f"src/{name}.py",
        first_line=line,
        last_line=line + 1,
    )


def raft_examples(n: int) -> list[RAFTExample]:
    """What does each of a few small functions call? The answer cites the function."""
    made = []
    for i in range(n):
        name, other = NAMES[i % len(NAMES)], NAMES[(i + 1) % len(NAMES)]
        oracle = document(name, i + 1)
        made.append(
            RAFTExample(
                question=f"Which function does {name} call?",
                oracle_documents=(oracle,),
                distractor_documents=(document(other),),
                reasoning=f"[{oracle.citation}] shows it.",
                final_answer=f"It calls `{name}_all`.",
                difficulty="medium",
                family="dependencies",
                subject_id=oracle.block_id,
                subject_path=f"src/{name}.py",
                facts=(Fact(kind="call", value=f"{name}_all"),),
                wrong_facts=(Fact(kind="call", value=f"{other}_all"),),
            )
        )
    return made


def reference_model(folder: Path) -> Any:
    """The model in `folder` as plain transformers runs it, float32; Gemma 2's capped scores are not in PyTorch's kernel."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    attention = "eager" if kind == "gemma2" else "sdpa"
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()


def reference_log_probs(model: Any, example: TokenizedExample) -> Tensor:
    """Log-probability of each answer token of one example, unpacked, by plain transformers."""
    with torch.no_grad():
        logits = model(torch.tensor([example.ids])).logits[0]
    chosen = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(example.ids[1:])[:, None])[:, 0]
    return chosen[example.n_prompt - 1 :]
