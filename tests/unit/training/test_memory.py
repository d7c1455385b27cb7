"""What a training needs: against the real thing, with bounds, and with what would fit where it does not."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ai_forge.config import ALL_LINEAR_MODULES, FineTuneConfig, load_settings
from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.training.backends.torch_init import initialise
from ai_forge.training.fit import require_memory, what_would_fit
from ai_forge.training.memory import memory_of, memory_range, mlx_memory_of, shape_in
from tiny_models import make_tiny
from tiny_training import check_batch, tiny_config


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": ("all-linear",)},
        {"target_modules": ("q_proj", "mlp.up_proj"), "rank_pattern": {"layers.1.mlp.up_proj": 3}},
        {"target_modules": ALL_LINEAR_MODULES, "rank_pattern": {"q_proj": 2}},
        {"target_modules": ("all-linear",), "architecture": "phi3"},
        {"target_modules": ("q_proj", "o_proj"), "architecture": "gemma2"},
    ],
)
def test_trained_values_are_those_of_the_real_adapters(tmp_path: Path, changes: dict[str, object]) -> None:
    options = dict(changes)
    folder = make_tiny(tmp_path, str(options.pop("architecture", "llama")))
    config = tiny_config(quantization="none", **options)
    trainee, _ = initialise(folder, config, check_batch(), exact=True)
    parts = memory_of(folder, config)
    assert parts["adapters and gradients"] == 8 * trainee.n_trainable
    assert parts["optimizer (8-bit)"] == 2 * trainee.n_trainable


@pytest.mark.parametrize("setting", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize("key", ["q_prj", "mlp.q_proj", "layers.9.q_proj", "lm_head", "down_proj"])
@pytest.mark.parametrize("memory", [memory_of, lambda folder, config: mlx_memory_of(shape_in(folder), config)])
def test_a_pattern_that_fits_no_adapted_layer_is_refused(
    tmp_path: Path, setting: str, key: str, memory: Callable[..., object]
) -> None:
    folder = make_tiny(tmp_path)
    memory(folder, tiny_config(target_modules=("q_proj", "v_proj"), **{setting: {r"layers\.[01]\..*q_proj": 4}}))
    config = tiny_config(target_modules=("q_proj", "v_proj"), **{setting: {"q_proj": 4, key: 100}})
    with pytest.raises(
        InputError, match=rf"training\.{setting} names '{key}', which fits no layer .* \(q_proj, v_proj\)"
    ):
        memory(folder, config)


MEASURE = """
import re, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from ai_forge.training.backends.torch_init import initialise
from ai_forge.training.losses import sft_loss
from ai_forge.training.tokens.packing import collate
from tiny_training import check_batch, tiny_config
config = tiny_config(quantization="none", rank=32, micro_batch_size=1, gradient_checkpointing={setting!r})
trainee, _ = initialise(Path({folder!r}), config, check_batch(16), exact=True)
for n in {lengths}:
    batch = check_batch(n)
    trainee.forward_backward(batch, sft_loss, batch.n_supervised)
    trainee.discard_gradients()
    status = Path("/proc/self/status").read_text()  # ru_maxrss would begin with the parent's peak
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize("setting", ["off", "on"])
def test_what_activations_really_take_lies_within_the_estimate(tmp_path: Path, setting: str) -> None:
    folder = make_tiny(tmp_path, hidden=256, inner=704, layers=8)
    lengths = 600, 1400
    script = MEASURE.format(tests=str(Path(__file__).parents[2]), folder=str(folder), lengths=lengths, setting=setting)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    first, second = (int(line) for line in done.stdout.split()[-2:])
    slope = second - first  # what 800 tokens more take: the rest of the program falls out
    config = tiny_config(quantization="none", rank=32, micro_batch_size=1, gradient_checkpointing=setting)
    expected = [
        memory_range(memory_of(folder, config.model_copy(update={"max_seq_len": n}), dtype_bytes=4))["activations"]
        for n in lengths
    ]
    assert slope <= expected[1].high - expected[0].high
    if setting == "off":  # of the little that is taken otherwise, much is memory that the process had already
        assert slope >= expected[1].low - expected[0].low


def test_the_bounds_enclose_what_is_expected(tmp_path: Path) -> None:
    ranges = memory_range(memory_of(make_tiny(tmp_path), tiny_config()))
    for name, part in ranges.items():
        assert 0 < part.low <= part.expected <= part.high, name
    assert ranges["frozen weights"].low == ranges["frozen weights"].high
    assert ranges["activations"].low < ranges["activations"].high
    assert ranges["total"].expected == sum(part.expected for name, part in ranges.items() if name != "total")


def config_of(name: str, **changes: object) -> FineTuneConfig:
    loaded = load_settings(("flag", {"training.base_model": name}))
    return loaded.settings.training.model_copy(update={"target_modules": ALL_LINEAR_MODULES, **changes})


def test_computing_activations_again_is_the_first_way_to_fit(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, hidden=256, inner=512, layers=8)
    config = config_of("Llama-3.2-1B-Instruct", max_seq_len=4096, micro_batch_size=4, gradient_checkpointing="off")
    needed, on = (
        memory_of(folder, config.model_copy(update={"gradient_checkpointing": setting})) for setting in ("off", "on")
    )
    ways = what_would_fit(needed, sum(on.values()), config, lambda changed: memory_of(folder, changed))
    assert ways[0] == "--set training.gradient_checkpointing=on"


def test_what_is_said_to_fit_fits(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, hidden=256, inner=512, layers=8)
    config = config_of("Llama-3.2-1B-Instruct", rank=64, micro_batch_size=4, grad_accum_steps=2, max_seq_len=4096)

    def estimate(changed: FineTuneConfig) -> dict[str, int]:
        return memory_of(folder, changed)

    needed = estimate(config)
    for share in (0.9, 0.7, 0.5):
        available = needed["program"] + int(share * (sum(needed.values()) - needed["program"]))
        with pytest.raises(PrerequisiteError) as caught:
            require_memory(needed, available, config, estimate)
        ways = what_would_fit(needed, available, config, estimate)
        assert str(caught.value.next_step) == f"this would fit: {', or '.join(ways)}."
        assert ways
        for way in ways:
            change = {key: int(value) for key, value in re.findall(r"training\.(\w+)=(\d+)", way)}
            changed = config.model_copy(update=change)
            assert sum(estimate(changed).values()) <= available
            assert changed.micro_batch_size * changed.grad_accum_steps == 8
    require_memory(needed, sum(needed.values()), config, estimate)


def test_where_no_setting_helps_a_base_is_named(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, hidden=256, inner=512, layers=8)
    config = config_of("Llama-3.2-1B-Instruct", max_seq_len=512)
    needed = memory_of(folder, config) | {"frozen weights": 3_000_000_000}
    ways = what_would_fit(needed, 2_500_000_000, config, lambda changed: needed)
    assert ways == ["--base Qwen3-0.6B"]
    assert what_would_fit(needed, 100, config, lambda changed: needed) == []
    with pytest.raises(PrerequisiteError, match=r"choose a smaller base, or lower training\.micro_batch_size"):
        require_memory(needed, 100, config, lambda changed: needed)
