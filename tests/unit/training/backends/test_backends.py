"""Which array library is chosen, and what is said where it is not there."""

import platform
import subprocess
import sys

import pytest

from ai_forge.errors import PrerequisiteError
from ai_forge.training import backends
from ai_forge.training.backends import backend_name, load_backend

MAC = ("Darwin", "arm64")


@pytest.mark.parametrize(
    ("setting", "machine", "missing", "chosen"),
    [
        ("auto", ("Linux", "x86_64"), (), "torch"),
        ("auto", ("Linux", "aarch64"), (), "torch"),
        ("auto", ("Darwin", "x86_64"), (), "torch"),
        ("auto", MAC, (), "mlx"),
        ("auto", MAC, ("mlx",), "torch"),
        ("auto", MAC, ("mlx_lm",), "torch"),
        ("auto", MAC, ("torch",), "mlx"),
        ("torch", MAC, (), "torch"),
        ("mlx", ("Linux", "x86_64"), (), "mlx"),
    ],
)
def test_auto_is_mlx_on_apple_silicon_where_it_is_installed(
    setting: str, machine: tuple[str, str], missing: tuple[str, ...], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: machine[0])
    monkeypatch.setattr(platform, "machine", lambda: machine[1])
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None if name in missing else object())
    assert backend_name(setting) == chosen


@pytest.mark.parametrize(
    ("setting", "named"), [("mlx", "mlx and mlx_lm"), ("torch", "torch and transformers and bitsandbytes")]
)
def test_a_backend_that_is_not_installed_says_how_to_get_it(
    setting: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError) as caught:
        load_backend(setting)
    assert str(caught.value) == (
        f"training.backend {setting} needs {named}, not installed here. Next: pip install 'ai-forge[{setting}]'"
    )


def test_choosing_imports_neither() -> None:
    code = (
        "import sys\n"
        "from ai_forge.training.backends import backend_name\n"
        "backend_name('auto')\n"
        "print(sorted({'torch', 'mlx', 'mlx_lm', 'transformers'} & set(sys.modules)))\n"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_torch_is_what_it_was() -> None:
    backend = load_backend("torch")
    assert (backend.name, backend.trainee.__name__, backend.generator.__name__) == (
        "torch", "TorchTrainee", "TorchGenerator",
    )  # fmt: skip
