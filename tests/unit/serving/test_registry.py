import dataclasses
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ai_forge.errors import AIForgeError, InputError, PrerequisiteError, RefusedError, TransientError
from ai_forge.serving import AskSettings, Deployment, Registry, RepositoryRef, RetrievalSettings, Sampling
from ai_forge.serving.registry import DamagedRowError


def deployment(version: str, name: str = "demo", system_prompt: str = "Be brief.") -> Deployment:
    return Deployment(
        name=name,
        version=version,
        gguf_path=Path("/models/x.gguf"),
        gguf_sha256="ab" * 32,
        chat_template="{{ messages }}",
        stop=("<|im_end|>",),
        system_prompt=system_prompt,
        sampling=Sampling(4096, 256, 0.0, 40, 0.9),
        base="SmolLM2-135M-Instruct",
        created_at="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture
def registry(tmp_path: Path):
    with Registry(tmp_path / "registry.db") as opened:
        yield opened


def filled(registry: Registry, *versions: str) -> None:
    for version in versions:
        registry.register(deployment(version))
        registry.activate("demo", version, "embedded")


def test_a_version_comes_back_as_it_was_registered(registry: Registry) -> None:
    registry.register(deployment("r1"), {"loss": 0.5, "passed": True})
    [version] = registry.versions("demo")
    assert version.deployment == deployment("r1")
    assert version.deployment.gguf_path == Path("/models/x.gguf")
    assert version.metrics == {"loss": 0.5, "passed": True}


ASKED = AskSettings(
    prompt_version=3,
    index_folder=Path("/home/cache/index/ab"),
    retrieval=RetrievalSettings(k=3, max_tokens=1200),
    repository=RepositoryRef(path=Path("/work/日本"), name="日本", commit="ab" * 20),
)


def test_how_a_version_is_asked_comes_back_and_may_be_recorded_later(registry: Registry) -> None:
    registry.register(deployment("r1"))
    assert registry.versions("demo")[0].deployment.asking is None
    registry.register(dataclasses.replace(deployment("r1"), asking=ASKED))
    registry.register(deployment("r1"))  # says nothing of it: what is known stays
    assert registry.versions("demo")[0].deployment.asking == ASKED


def test_a_registry_of_the_first_schema_is_read_and_brought_up(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    with Registry(path) as registry:
        filled(registry, "r1")
    with sqlite3.connect(path) as old:
        old.execute("ALTER TABLE versions DROP COLUMN asking")
        old.execute("ALTER TABLE versions DROP COLUMN seal")
        old.execute("ALTER TABLE activations DROP COLUMN seal")
        old.execute("PRAGMA user_version = 1")
    old.close()
    with Registry(path) as registry:
        assert registry.versions("demo")[0].deployment == deployment("r1")
        registry.register(dataclasses.replace(deployment("r1"), asking=ASKED))
    with Registry(path) as registry:
        assert registry.versions("demo")[0].deployment.asking == ASKED


def test_a_version_never_changes(registry: Registry) -> None:
    registry.register(deployment("r1"))
    registry.register(deployment("r1"))
    elsewhere = dataclasses.replace(deployment("r1"), gguf_path=Path("/moved.gguf"), created_at="later")
    registry.register(elsewhere)
    with pytest.raises(InputError, match="demo:r1 is registered with another system_prompt; a version never changes"):
        registry.register(deployment("r1", system_prompt="Be long."))
    assert len(registry.versions()) == 1


def test_activating_what_is_not_registered_names_what_is(registry: Registry) -> None:
    filled(registry, "r1")
    with pytest.raises(InputError, match="demo has no version 'r9'; it has: r1"):
        registry.activate("demo", "r9", "embedded")


def test_each_rollback_goes_one_version_further_back(registry: Registry) -> None:
    filled(registry, "r1", "r2", "r3")
    assert registry.rollback("demo").version == "r2"
    assert registry.rollback("demo").version == "r1"
    with pytest.raises(RefusedError, match="demo:r1 is the oldest version of demo that is kept"):
        registry.rollback("demo")
    assert [a.reason for a in registry.history("demo")] == ["deploy"] * 3 + ["rollback"] * 2
    assert [a.version for a in registry.history("demo")] == ["r1", "r2", "r3", "r2", "r1"]


def test_a_deployment_after_a_rollback_rolls_back_to_where_it_came_from(registry: Registry) -> None:
    filled(registry, "r1", "r2")
    registry.rollback("demo")
    filled(registry, "r3")
    assert registry.rollback("demo").version == "r1"


def test_activating_the_active_version_again_adds_nothing(registry: Registry) -> None:
    filled(registry, "r1", "r1")
    assert len(registry.history("demo")) == 1


def test_a_move_to_the_other_runtime_is_no_step_for_rollback(registry: Registry) -> None:
    filled(registry, "r1", "r2")
    registry.activate("demo", "r2", "ollama")
    active = registry.active("demo")
    assert active is not None
    assert (active.version, active.runtime) == ("r2", "ollama")
    assert registry.rollback("demo").version == "r1"


def test_models_do_not_touch_each_other(registry: Registry) -> None:
    filled(registry, "r1", "r2")
    registry.register(deployment("r1", name="other"))
    registry.activate("other", "r1", "embedded")
    with pytest.raises(RefusedError):
        registry.rollback("other")
    active = registry.active("demo")
    assert active is not None
    assert active.version == "r2"


def test_rollback_of_an_unknown_model_names_the_known(registry: Registry) -> None:
    filled(registry, "r1")
    with pytest.raises(InputError, match="No version of 'dmeo' is active; deployed models: demo"):
        registry.rollback("dmeo")


def test_pruning_spares_the_newest_the_active_and_the_one_before(registry: Registry) -> None:
    filled(registry, "r1", "r2", "r3", "r4", "r5")
    assert [v.deployment.version for v in registry.prunable("demo", keep=3)] == ["r1", "r2"]
    assert [v.deployment.version for v in registry.prunable("demo", keep=1)] == ["r1", "r2", "r3"]
    registry.rollback("demo")  # r4 is active, r3 is next
    assert [v.deployment.version for v in registry.prunable("demo", keep=1)] == ["r1", "r2", "r5"]
    with pytest.raises(RefusedError, match="demo:r3 is active or next in a rollback"):
        registry.forget("demo", "r3")
    registry.forget("demo", "r1")
    assert registry.find("demo", "r1") is None


def test_rollback_past_forgotten_versions_is_refused(registry: Registry) -> None:
    filled(registry, "r1", "r2", "r3")
    registry.forget("demo", "r1")
    assert registry.rollback("demo").version == "r2"
    with pytest.raises(RefusedError):
        registry.rollback("demo")


def test_a_file_that_is_no_database_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"not a database, certainly " * 100)
    with pytest.raises(InputError, match=r"registry\.db is not a usable registry"):
        Registry(path)
    assert path.read_bytes().startswith(b"not a database")


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    with pytest.raises(InputError, match="is a database of something else"):
        Registry(path)


def test_a_newer_schema_asks_for_an_update(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    Registry(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(PrerequisiteError, match="has schema 99; this AI Forge knows 3"):
        Registry(path)


def test_a_folder_that_does_not_exist_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="unable to open database file"):
        Registry(tmp_path / "nowhere" / "registry.db")


def test_a_lock_held_by_another_process_is_worth_a_retry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ai_forge.serving.registry.BUSY_TIMEOUT_S", 0.1)
    with Registry(tmp_path / "registry.db") as registry:
        filled(registry, "r1")
        other = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TransientError, match=r"Another process has held .*registry\.db for 0\.1 s"):
            registry.register(deployment("r2"))
        other.execute("ROLLBACK")
        other.close()
        registry.register(deployment("r2"))


WRITER = """
import sys
from pathlib import Path
from ai_forge.serving import Registry
registry = Registry(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    for version in ("r1", "r2", "r3"):
        registry.activate("demo", version, "embedded")
    registry.rollback("demo")
"""


@pytest.mark.slow
def test_killed_at_random_moments_the_pointer_is_always_whole(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    with Registry(path) as registry:
        for version in ("r1", "r2", "r3"):
            registry.register(deployment(version))
    rng = random.Random(7)
    n_before = 0
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(rng.uniform(0.02, 0.2))
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        with Registry(path) as registry:
            history = registry.history("demo")
            active = registry.active("demo")
            assert active == history[-1]
            assert active.version in ("r1", "r2", "r3")
            assert [row.id for row in history] == list(range(1, len(history) + 1))
            assert all(row.previous is None or row.previous < row.id for row in history)
            assert len(history) > n_before
            n_before = len(history)
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()


@pytest.mark.parametrize("column", ["stop", "sampling", "metrics", "asking"])
@pytest.mark.parametrize("value", ["", "{", "[1, {}]", "3", b"\xff\xfe", '{"num_ctx": "many"}'])
def test_a_damaged_row_is_told_and_made_anew_by_deploying(tmp_path: Path, column: str, value: object) -> None:
    path = tmp_path / "registry.db"
    with Registry(path) as registry:
        filled(registry, "r1", "r2")
        with sqlite3.connect(path) as other:
            other.execute(f"UPDATE versions SET {column} = ? WHERE version = 'r1'", (value,))
        other.close()
        readable = [version.deployment.version for version in registry.versions("demo")]
        assert readable == ["r2"]
        with pytest.raises(InputError, match=r"row of demo:r1 is damaged: .* Next: make it anew: ai-forge deploy"):
            registry.find("demo", "r1")
        registry.register(deployment("r1"))
        found = registry.find("demo", "r1")
        assert found is not None
        assert found.deployment == deployment("r1")


@pytest.mark.parametrize(
    ("column", "value"),
    [("runtime", "cloud"), ("runtime", 7), ("version", b"\x00"), ("previous", "first"), ("activated_at", "")],
)
def test_a_damaged_activation_is_told_and_mended_by_deploying(tmp_path: Path, column: str, value: object) -> None:
    path = tmp_path / "registry.db"
    with Registry(path) as registry:
        filled(registry, "r1", "r2")
        with sqlite3.connect(path) as other:
            other.execute(f"UPDATE activations SET {column} = ? WHERE version = 'r2'", (value,))
        other.close()
        with pytest.raises(DamagedRowError, match=r"Which version of demo is active .* Next: .* ai-forge deploy"):
            registry.active("demo")
        assert len(registry.damaged()) == 1
        assert registry.activate("demo", "r2", "embedded").version == "r2"
        assert registry.rollback("demo").version == "r1"


@pytest.mark.parametrize(
    "change", ["DELETE FROM activations WHERE id = 3", "UPDATE activations SET name = 'dem' WHERE id = 3"]
)
def test_a_lost_activation_is_no_way_back_to_the_version_before(tmp_path: Path, change: str) -> None:
    with Registry(tmp_path / "registry.db") as registry:
        filled(registry, "r1", "r2")
        for version in ("r1", "r2"):
            registry.register(dataclasses.replace(deployment(version), name="other"))
        registry.activate("demo", "r1", "embedded")  # the third
        with sqlite3.connect(tmp_path / "registry.db") as other:
            other.execute(change)
        other.close()
        with pytest.raises(DamagedRowError):
            registry.active("demo")
        with pytest.raises(DamagedRowError):
            registry.rollback("demo")
        assert registry.prunable("demo", 1) == []
        registry.activate("demo", "r1", "embedded")
        active = registry.active("demo")
        assert active is not None
        assert active.version == "r1"


def test_another_models_damaged_activation_does_no_harm(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry.db") as registry:
        filled(registry, "r1")
        for version in ("r1", "r2"):
            registry.register(dataclasses.replace(deployment(version), name="other"))
            registry.activate("other", version, "embedded")
        with sqlite3.connect(tmp_path / "registry.db") as other:
            other.execute("UPDATE activations SET version = 'r9' WHERE id = 3")
        other.close()
        active = registry.active("demo")
        assert active is not None
        assert active.version == "r1"
        assert list(registry.deployed()) == ["demo"]


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE activations",
        "ALTER TABLE versions RENAME COLUMN stop TO halt",
        "PRAGMA user_version = -3",
        "DROP TABLE versions",
    ],
)
def test_a_registry_of_another_shape_names_the_way_out(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "registry.db"
    Registry(path).close()
    with sqlite3.connect(path) as other:
        other.execute(statement)
    other.close()
    with (
        pytest.raises(InputError, match=r"registry\.db is not a usable registry: .*mv .*registry\.db"),
        Registry(path) as registry,
    ):
        registry.register(deployment("r1"))
        registry.activate("demo", "r1", "embedded")


@pytest.mark.parametrize("at", range(0, 20_000, 1900))
def test_a_registry_with_flipped_bytes_is_read_or_refused(tmp_path: Path, at: int) -> None:
    path = tmp_path / "registry.db"
    with Registry(path) as registry:
        filled(registry, "r1", "r2", "r3")
    content = bytearray(path.read_bytes())
    for place in range(at, min(at + 40, len(content))):
        content[place] ^= 0xFF
    path.write_bytes(content)
    try:
        with Registry(path) as registry:
            registry.versions()
            registry.history("demo")
            registry.rollback("demo")
    except AIForgeError as error:
        assert error.next_step is not None or "unknown" in error.message  # noqa: PT017
