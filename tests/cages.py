"""When tests that run code in the cage are skipped: elsewhere than on Linux, and without bubblewrap (never in CI)."""

import os
import shutil
import sys

import pytest

HAS_CAGE = sys.platform == "linux" and (shutil.which("bwrap") is not None or "CI" in os.environ)
caged = pytest.mark.skipif(not HAS_CAGE, reason="needs bubblewrap on Linux: sudo apt install bubblewrap")
