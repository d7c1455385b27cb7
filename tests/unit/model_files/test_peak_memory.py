"""Merging and exporting hold a tensor at a time: what is measured is the peak of a fresh process."""

import subprocess
import sys
from pathlib import Path

import pytest

from ai_forge.model_files.tensors import Weights
from tiny_models import make_tiny

ALLOWED_BYTES = 90_000_000  # slices in float32, and what threads and the allocator keep
SCRIPT = """
import re, sys
from pathlib import Path
import numpy, gguf
from ai_forge.model_files.gguf.kquants import ggml
from ai_forge.model_files.gguf.writer import write_gguf
from ai_forge.model_files.tensors import Weights

ggml()
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
folder, out, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
Weights(folder)
before = peak()
write_gguf(folder, out, kind)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_the_peak_of_an_export_does_not_grow_with_the_model(kind: str, tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "m", hidden=512, heads=8, kv_heads=8, inner=1536, layers=40)
    specs = Weights(folder).specs.values()
    whole, largest = sum(spec.n_bytes for spec in specs), max(spec.n_bytes for spec in specs)
    assert whole > 3 * (ALLOWED_BYTES + 2 * largest)  # else this would show nothing
    command = [sys.executable, "-c", SCRIPT, str(folder), str(tmp_path / "out.gguf"), kind]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=240)
    assert int(told.stdout) < 2 * largest + ALLOWED_BYTES
