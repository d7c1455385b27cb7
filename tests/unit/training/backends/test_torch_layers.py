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
def test_dense_nf4_holds_what_bitsandbytes_dequantises(block_size: int) -> None:
    codes, state = bnb.quantize_4bit(weight(), blocksize=block_size, quant_type="nf4")
    frozen = FrozenWeight(weight(), torch.float32, block_size, packed=False)
    assert torch.equal(frozen.dense(), bnb.dequantize_4bit(codes, state))
    assert len(torch.unique(frozen.dense().reshape(-1, block_size)[0])) <= 16


def test_packed_and_dense_nf4_give_the_same_product() -> None:
    dense = FrozenWeight(weight(), torch.bfloat16, 64, packed=False)
    packed = FrozenWeight(weight(), torch.bfloat16, 64, packed=True)
    x, bias = inputs().bfloat16(), torch.randn(128, generator=torch.Generator().manual_seed(2)).bfloat16()
    assert torch.equal(packed.dense(), dense.dense())
    # bf16 carries 8 bits: a sum of 256 terms of this size (outputs up to 3) is known to about 2^-8 of its size
    torch.testing.assert_close(packed.product(x, bias), dense.product(x, bias), atol=2e-2, rtol=2e-2)


def test_packed_nf4_takes_a_quarter_of_bf16() -> None:
    packed = FrozenWeight(weight(512, 512), torch.bfloat16, 64, packed=True)
    n_bytes = packed._tensor.numel() * packed._tensor.element_size() + packed._state.absmax.numel() * 4
    assert n_bytes == pytest.approx(0.25 * 512 * 512 * 2, rel=0.13)


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
