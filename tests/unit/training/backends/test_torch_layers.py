"""Frozen weights and the adapter layer against plain products and bitsandbytes."""

import bitsandbytes.functional as bnb
import pytest
import torch

from ai_forge.training.backends.torch_layers import AdapterLinear, FrozenWeight


def weight(n_out: int = 128, n_in: int = 256) -> torch.Tensor:
    return torch.randn(n_out, n_in, generator=torch.Generator().manual_seed(0)) * 0.05


def inputs(n_in: int = 256, n: int = 7) -> torch.Tensor:
    return torch.randn(2, n, n_in, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("block_size", [64, 128])
def test_dense_nf4_holds_what_bitsandbytes_dequantizes(block_size: int) -> None:
    codes, state = bnb.quantize_4bit(weight(), blocksize=block_size, quant_type="nf4", compress_statistics=True)
    frozen = FrozenWeight(weight(), torch.float32, block_size, packed=False)
    assert torch.equal(frozen.dense(), bnb.dequantize_4bit(codes, state))
    assert len(torch.unique(frozen.dense().reshape(-1, block_size)[0])) <= 16


def test_packed_and_dense_nf4_are_the_same_layer() -> None:
    dense, packed = (FrozenWeight(weight(), torch.bfloat16, 64, packed=held) for held in (False, True))
    stored = FrozenWeight.from_packed(packed.packed(), torch.bfloat16, torch.device("cpu"))
    assert dense.packed() == {}
    a, b = torch.randn(4, 256), torch.randn(128, 4)
    made = [AdapterLinear(frozen, None, a, b, 1.5)(inputs().bfloat16()) for frozen in (dense, packed, stored)]
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


def test_packed_parts_that_do_not_fit_together_are_refused() -> None:
    parts = FrozenWeight(weight(), torch.bfloat16, 64, packed=True).packed()
    for name in parts:
        for broken in (parts | {name: parts[name][:-1]}, {k: v for k, v in parts.items() if k != name}):
            with pytest.raises(ValueError, match=r"NF4|nf4"):
                FrozenWeight.from_packed(broken, torch.bfloat16, torch.device("cpu"))


def test_packed_nf4_takes_a_quarter_of_bf16() -> None:
    parts = FrozenWeight(weight(1024, 1024), torch.bfloat16, 64, packed=True).packed()
    n_bits = 8 * sum(tensor.numel() * tensor.element_size() for tensor in parts.values())
    assert n_bits / 1024**2 == pytest.approx(4 + 8 / 64 + 32 / 64 / 256, abs=0.05)


def test_without_a_block_size_the_weights_are_as_given() -> None:
    frozen = FrozenWeight(weight(), torch.float32, None, packed=True)
    assert torch.equal(frozen.dense(), weight())


def test_the_adapter_layer_is_the_formula() -> None:
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn(4, 256, generator=generator), torch.randn(128, 4, generator=generator)
    bias = torch.randn(128, generator=generator)
    layer = AdapterLinear(FrozenWeight(weight(), torch.float32, None, packed=False), bias, a, b, 1.5)
    expected = inputs() @ (weight() + 1.5 * b @ a).T + bias
    torch.testing.assert_close(layer(inputs()), expected, atol=1e-4, rtol=1e-5)
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}


def test_what_is_too_small_for_the_grid_of_bf16_acts_all_the_same() -> None:
    n, rank = 4096, 4
    x = torch.randn(n, 256, generator=torch.Generator().manual_seed(4)).bfloat16()
    a, b = torch.randn(rank, 256, generator=torch.Generator().manual_seed(5)), torch.full((128, rank), 5e-6)
    frozen = FrozenWeight(weight(), torch.bfloat16, None, packed=False)
    small = x.float() @ a.bfloat16().float().T @ b.T
    step = 2.0 ** (torch.floor(torch.log2((x @ frozen.dense().T).float().abs())) - 7)
    assert (small.abs() < step / 2).float().mean() > 0.9  # on its own nearly all of it would be rounded away
    with_it, without = (AdapterLinear(frozen, None, a, side, 1.0)(x).float() for side in (b, torch.zeros_like(b)))
    kept = ((with_it - without) * small).sum() / small.square().sum()  # least squares: 1 where it acts in full
    assert float(kept.detach()) == pytest.approx(1.0, abs=0.1)


def test_a_frame_that_is_filled_again_gives_the_same_gradients() -> None:
    a, b = torch.randn(4, 256), torch.randn(128, 4)
    layer = AdapterLinear(FrozenWeight(weight(), torch.float32, None, packed=False), None, a, b, 1.5)
    first, second = inputs(n=3), inputs(n=5) + 1
    both = torch.autograd.grad(layer(first).sin().sum() + layer(second).sin().sum(), [layer.lora_A, layer.lora_B])
    alone = [torch.autograd.grad(layer(x).sin().sum(), [layer.lora_A, layer.lora_B]) for x in (first, second)]
    for together, one, other in zip(both, *alone, strict=True):
        torch.testing.assert_close(together, one + other)
