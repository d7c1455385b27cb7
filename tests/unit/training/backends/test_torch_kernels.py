"""The written-out gradients against those of the plain formulas."""

import pytest
import torch

from ai_forge.training.backends.torch_kernels import SegmentAttention, attend, rows

SEGMENTS = {
    "one": [(range(0), range(300))],
    "documents": [(range(0), range(140)), (range(0), range(140, 300))],
    "shared prompt": [
        (range(0), range(130)),
        (range(130), range(130, 190)),
        (range(130), range(190, 191)),
        (range(0), range(191, 200)),
        (range(191, 200), range(200, 300)),
    ],
}


@pytest.mark.parametrize("segments", SEGMENTS.values(), ids=SEGMENTS)
def test_segment_attention_equals_plain_attention(segments: list[tuple[range, range]]) -> None:
    torch.manual_seed(0)
    shapes = (6, 300, 16), (2, 300, 16), (2, 300, 16)
    exact = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    low = [x.detach().bfloat16().requires_grad_() for x in exact]
    scale = 16**-0.5
    q, k, v = exact
    expected = torch.cat([attend(rows(q, o), rows(k, p, o), rows(v, p, o), scale) for p, o in segments], dim=1)
    ours = SegmentAttention.apply(*low, segments, scale)
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (ours * weights.bfloat16()).sum().backward()
    torch.testing.assert_close(ours.double(), expected, atol=0.03, rtol=0)
    for a, b in zip(low, exact, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert float((a.grad.double() - b.grad).norm() / b.grad.norm()) < 0.01


def test_scores_that_are_huge_overflow_nowhere() -> None:
    torch.manual_seed(3)
    shapes = (4, 200, 16), (2, 200, 16), (2, 200, 16)
    q, k, v = (size * torch.randn(shape).bfloat16() for size, shape in zip((300, 300, 1), shapes, strict=True))
    ours = SegmentAttention.apply(q, k, v, [(range(0), range(200))], 1.0)
    torch.testing.assert_close(ours.double(), attend(q.double(), k.double(), v.double(), 1.0), atol=0.02, rtol=0)


def test_a_query_among_the_last_rows_sees_the_keys_before_it() -> None:
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, 7, 4, dtype=torch.float64) for _ in range(3))
    whole = attend(q, k, v, 0.5)
    torch.testing.assert_close(attend(q[:, 4:], k, v, 0.5), whole[:, 4:])
    scores = (q @ k.transpose(1, 2) * 0.5).masked_fill(~torch.ones(7, 7, dtype=torch.bool).tril(), float("-inf"))
    torch.testing.assert_close(whole, scores.softmax(-1) @ v)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("window", [None, 1, 3, 7])
def test_windows_and_capped_scores_are_the_formula(window: int | None, softcap: float | None) -> None:
    torch.manual_seed(2)
    q, k, v = (torch.randn(heads, 7, 4, dtype=torch.float64) for heads in (4, 2, 2))
    scores = q @ k.repeat_interleave(2, dim=0).transpose(1, 2) * 0.5
    scores = scores if softcap is None else softcap * (scores / softcap).tanh()
    behind = torch.arange(7)[:, None] - torch.arange(7)
    seen = (behind >= 0) & (behind < (window or 7))
    expected = scores.masked_fill(~seen, float("-inf")).softmax(-1) @ v.repeat_interleave(2, dim=0)
    # capped weights pass through float32
    torch.testing.assert_close(attend(q, k, v, 0.5, window, softcap), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(attend(q[:, 4:], k, v, 0.5, window, softcap), expected[:, 4:], atol=1e-6, rtol=0)
