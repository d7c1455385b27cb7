"""MLX computes on the CPU in these tests, in float32: what they compare it with does too."""

import importlib.util

import pytest


@pytest.fixture(scope="session", autouse=True)
def _mlx_on_the_cpu() -> None:
    if importlib.util.find_spec("mlx") is not None:
        import mlx.core as mx

        mx.set_default_device(mx.cpu)
