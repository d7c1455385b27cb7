"""Units against each language's own parser: on the fixtures here, on whole packages by `make oracles`."""

import hashlib
import sysconfig
from pathlib import Path

import pytest

from ai_forge.data_pipeline.languages import language_of
from oracles.compare import compare, missing
from oracles.standalone import blocks_that_do_not_parse

FIXTURES = Path(__file__).parents[3] / "fixtures" / "languages"
LIBRARY = Path(sysconfig.get_path("stdlib"))
ODD = {  # seen in CPython's library and in npm packages; the grammars refuse the first two as they stand
    "brackets.py": "def f():\n    def g():\n        (a.\n    b)\n        return [\n  1]\n\nclass A:\n    'Doc' ''\n",
    "variance.ts": "export interface Box<\n  out T = unknown,\n  in U extends T = T,\n> extends Base<T> {\n  f(): U\n}\n",
    "lambda.py": "one = (lambda self:\n    getattr(self, 'x'))\ntwo: int = lambda: 3\n",
    "default.ts": "/** Doc. */\nexport default function (a: number): number {\n  return a;\n}\n",
}


def sample_of_the_library(n_files: int) -> list[Path]:
    """Files of the whole library by the hash of their path: another Python version has about the same ones."""
    files = [path for path in LIBRARY.rglob("*.py") if "site-packages" not in path.parts]
    return sorted(files, key=lambda path: hashlib.sha256(path.relative_to(LIBRARY).as_posix().encode()).digest())[
        :n_files
    ]


@pytest.mark.slow
def test_python_units_are_those_of_ast() -> None:
    agreement = compare("python", sample_of_the_library(150))
    assert agreement.differences == []
    assert agreement.oracle > 2_000
    assert agreement.equal == agreement.ours == agreement.oracle


@pytest.mark.slow
def test_every_block_of_the_library_parses_on_its_own() -> None:
    n_blocks, broken = blocks_that_do_not_parse(sample_of_the_library(60))
    assert n_blocks > 500
    assert broken == []


@pytest.mark.parametrize("language", ["python", "javascript", "typescript", "go", "java", "rust"])
def test_the_fixtures_units_are_those_of_the_languages_own_parser(language: str, tmp_path: Path) -> None:
    reason = missing(language)
    if reason is not None:
        pytest.skip(f"no {language} oracle: {reason}")
    for name, text in ODD.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    files = [path for folder in (FIXTURES, tmp_path) for path in sorted(folder.iterdir())]
    own = [path for path in files if (language_of(path.name) or "").replace("tsx", "typescript") == language]
    agreement = compare(language, own)
    assert agreement.refused == 0
    assert agreement.differences == []
    assert agreement.equal == agreement.oracle > 4


def test_a_missing_toolchain_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("AI_FORGE_ORACLES", str(tmp_path))
    assert missing("go") == "go is not on PATH"
    assert missing("rust") == "the syn oracle is not built: make oracles"
    assert missing("python") is None
