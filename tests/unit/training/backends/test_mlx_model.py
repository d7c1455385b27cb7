"""mlx-lm's models as this backend loads them, against transformers, in float32."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

mx = pytest.importorskip("mlx.core", reason="MLX is not installed: pip install 'ai-forge[mlx]'")

from ai_forge.errors import InputError  # noqa: E402
from ai_forge.training.backends import mlx_model  # noqa: E402
from ai_forge.training.backends.mlx_model import MLXGenerator, load_model  # noqa: E402
from ai_forge.training.tokens.packing import TokenizedExample, collate  # noqa: E402
from tiny_models import make_tiny  # noqa: E402
from tiny_training import check_batch, random_examples, reference_log_probs, reference_model  # noqa: E402

END = 2
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}
ROPES: dict[str, dict[str, Any] | None] = {
    "default": None,
    "another base": {"rope_type": "default", "rope_theta": 1e6},
    "llama3": LLAMA3,
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
    "yarn": YARN,
    "yarn, an attention factor": YARN | {"attention_factor": 0.8},
    "yarn, mscales": YARN | {"mscale": 0.7, "mscale_all_dim": 1.3},
    "yarn, one mscale": YARN | {"mscale": 0.5, "mscale_all_dim": 0.0, "beta_fast": None},
}
SHARED = [TokenizedExample((*range(3, 90), 100 + n, 7, 8, 9), 88) for n in range(3)]
"""Three examples that share a prompt: a tree in a packed row."""


def distance(folder: Path, examples: list[TokenizedExample]) -> float:
    """The largest difference of a packed row's log-probabilities from those of transformers, example by example."""
    ours = MLXGenerator.load(folder, END, exact=True).log_probs(collate(examples))
    model = reference_model(folder)
    theirs = torch.cat([reference_log_probs(model, example) for example in examples])
    return float(np.abs(ours - theirs.numpy()).max())


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_packed_log_probs_are_those_of_transformers_one_by_one(architecture: str, rope: str, tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, architecture, rope=ROPES[rope], tied=architecture == "llama")
    assert distance(folder, [*random_examples(3), *SHARED]) < 2e-5


@pytest.mark.parametrize("kind", ["mistral", "qwen3"])
def test_other_architectures_too(kind: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        kind, vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=512, sliding_window=None, initializer_range=0.1,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path)
    assert distance(tmp_path, [*random_examples(3), *SHARED]) < 2e-5


@pytest.mark.parametrize(
    "made",
    [{"architecture": "phi3"}, {"architecture": "gemma3_text", "layers": 6, "window": 16}],
    ids=lambda m: m["architecture"],
)
def test_fused_projections_and_windows_too(made: dict[str, Any], tmp_path: Path) -> None:
    """Six layers, so that Gemma's last one sees the whole context."""
    folder = make_tiny(tmp_path, **made)
    assert distance(folder, [*random_examples(3), *SHARED]) < 5e-5
    prompts = [example.ids for example in random_examples(2, seed=2)]
    model = reference_model(folder)
    for prompt, answer in zip(prompts, MLXGenerator.load(folder, END, exact=True).generate(prompts, 12), strict=True):
        whole = model.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=12, eos_token_id=END, pad_token_id=END
        )
        expected = whole[0, len(prompt) :].tolist()
        assert answer == (expected[: expected.index(END)] if END in expected else expected)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("kind", ["padded batch", "one prompt", "equal lengths"])
def test_answers_and_losses_equal_transformers_one_by_one(folder: Path, kind: str) -> None:
    chosen = random_examples(4, seed=2)
    prompts = [e.ids[: None if kind == "padded batch" else 8] for e in chosen[: 1 if kind == "one prompt" else None]]
    references: list[tuple[int, ...]] = [e.ids[3:] for e in random_examples(len(prompts), seed=3)]
    if kind == "padded batch":
        references[1] = ()
    generator = MLXGenerator.load(folder, END, exact=True)
    ours = generator.answer(prompts, references, 12)
    assert generator.generate(prompts, 12) == [answer for answer, _ in ours]
    model = reference_model(folder)
    for prompt, reference, (answer, nats) in zip(prompts, references, ours, strict=True):
        ids = torch.tensor([prompt])
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=END,
            pad_token_id=END,
        )[0, ids.shape[1] :].tolist()
        assert answer == (whole[: whole.index(END)] if END in whole else whole)
        expected = reference_log_probs(model, TokenizedExample((*prompt, *reference), len(prompt))) if reference else 0
        assert nats == pytest.approx(-float(torch.as_tensor(expected).sum()), rel=1e-4)


def test_an_answer_stops_before_the_end_of_turn(folder: Path) -> None:
    prompt = random_examples(1)[0].ids
    free = MLXGenerator.load(folder, END, exact=True).generate([prompt], 6)[0]
    stopped = MLXGenerator.load(folder, free[3], exact=True).generate([prompt], 6)[0]
    assert stopped == free[: free.index(free[3])]


def test_long_batches_are_scored_in_chunks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MLXGenerator.load(folder, END)
    whole = model.log_probs(check_batch(200))
    monkeypatch.setattr(mlx_model, "CHUNK", 7)
    assert whole.shape == (199,)
    np.testing.assert_allclose(model.log_probs(check_batch(200)), whole, atol=1e-5)


def test_vocabulary_log_probs_are_distributions(folder: Path) -> None:
    model, batch = MLXGenerator.load(folder, END), collate(random_examples(3))
    rows = model.vocabulary_log_probs(batch)
    np.testing.assert_allclose(np.exp(rows).sum(1), 1, atol=1e-5)
    targets = batch.targets[batch.targets >= 0]
    np.testing.assert_allclose(rows[np.arange(len(targets)), targets], model.log_probs(batch), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model_type": "gemma2"}, "architecture gemma2"),
        ({"hidden_act": "gelu"}, "the activation gelu"),
        ({"model_type": "phi3", "rope_parameters": {"rope_type": "longrope"}}, "rotary embeddings of type longrope"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4}}, "rotary embeddings of type dynamic"),
        ({"rope_parameters": {"full_attention": {}}}, "rotary embeddings that differ by layer"),
    ],
)
def test_what_is_not_served_is_refused_by_name(folder: Path, tmp_path: Path, change: dict[str, Any], what: str) -> None:
    config = json.loads((folder / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError) as caught:
        load_model(tmp_path, dtype=mx.float32)
    assert str(caught.value) == (
        f"The MLX backend does not serve {what} (it has llama, mistral, qwen2, qwen3, phi3, gemma3_text). "
        "Next: train this base with training.backend=torch."
    )


def test_weights_that_do_not_fit_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"do not fit its config.json: .*model\.layers\.1\."):
        load_model(tmp_path, dtype=mx.float32)


def test_the_backend_runs_without_torch() -> None:
    """mlx-lm's own `__init__` would import transformers and lower the limit of open files."""
    code = (
        "import resource, sys\n"
        "before = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "from ai_forge.training.backends import load_backend\n"
        "from ai_forge.training.backends.mlx_model import mlx_lm_module\n"
        "load_backend('mlx')\n"
        "mlx_lm_module('llama'); mlx_lm_module('cache')\n"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == before\n"
        "print(sorted({'torch', 'transformers', 'mlx_lm'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
