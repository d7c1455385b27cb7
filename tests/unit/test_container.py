"""What the image is built of: a file that is copied into it, or installed from, must be let through by `.dockerignore`."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_all_that_the_dockerfile_uses_reaches_its_build() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    copied = {source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]}
    read = {name for line in lines if line.startswith("RUN ") for name in re.findall(r"-[rc] (\S+\.lock)", line)}
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert read <= copied
    assert copied <= let_through
    assert all((ROOT / name).exists() for name in copied)
