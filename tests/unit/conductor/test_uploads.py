"""What strangers send: nothing lands outside, nothing acts, and what can be trained on is kept."""

import contextlib
import gzip
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from ai_forge.conductor.archives import unpack
from ai_forge.conductor.problems import ServiceError
from ai_forge.conductor.uploads import check_base, receive, repository_inside
from ai_forge.errors import InputError
from malicious_archives import CONTENT, GIT, malicious_archives, zip_of

MAX_BYTES = 2_000_000


def everything(folder: Path) -> dict[str, bytes | str]:
    """All files and links below a folder."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def test_two_hundred_malicious_archives_leave_nothing_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "evil").write_text("as it was")
    archives = malicious_archives(str(outside))
    assert len(archives) == 200
    n_refused = n_kept = 0
    for number, (name, content) in enumerate(archives):
        home = tmp_path / f"home{number}"
        target = home / "in" / "side"
        target.mkdir(parents=True)
        archive = home / name
        archive.write_bytes(content)
        refused: InputError | None = None
        try:
            unpacked = unpack(archive, target, max_bytes=MAX_BYTES)
            n_kept += 1
            assert unpacked.root.is_relative_to(target)
        except InputError as error:
            n_refused += 1
            refused = error
        assert refused is None or refused.next_step
        assert str(tmp_path) not in str(refused)
        assert everything(outside) == {"evil": b"as it was"}, (number, name)
        stray = [key for key in everything(home) if not key.startswith("in/side/") and key != name]
        assert stray == [], (number, name)
        inside = everything(target)
        assert all(isinstance(value, bytes) for value in inside.values()), "no link was made"
        assert sum(len(value) for value in inside.values()) <= MAX_BYTES + 1_000
        assert not any(path.stat().st_mode & 0o7111 for path in target.rglob("*") if path.is_file())
        assert not any(b"fsmonitor" in value for value in inside.values() if isinstance(value, bytes))
    assert n_refused + n_kept == 200
    assert n_refused > 80
    assert n_kept > 20


@pytest.mark.parametrize("name", GIT)
def test_what_git_would_act_on_is_left_out(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "x.zip"
    archive.write_bytes(zip_of(("repo/ok.py", b"x = 1\n", 0o100644), (name, CONTENT, 0o100755)))
    unpacked = unpack(archive, tmp_path / "out", max_bytes=MAX_BYTES)
    assert (unpacked.n_files, unpacked.n_left_out) == (1, 1)


def test_a_repository_comes_with_its_history(tmp_path: Path) -> None:
    repo = tmp_path / "project"
    repo.mkdir()
    git = ["git", "-C", str(repo), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    (repo / "a.py").write_text("x = 1\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "First"]):
        subprocess.run([*git, *words], check=True)
    (repo / "link").symlink_to("/etc/passwd")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(repo, "project")
    packed.seek(0)
    folder = tmp_path / "job"
    folder.mkdir()
    received = receive(packed, "Project.TAR.GZ", None, folder, None, MAX_BYTES)
    assert (received.path.name, received.recipe) == ("project", "repository")
    log = subprocess.run(["git", "-C", str(received.path), "log", "--format=%s"], capture_output=True, check=True)
    assert log.stdout == b"First\n"
    assert sorted(path.name for path in folder.iterdir()) == ["repository"]
    assert not (received.path / "link").exists()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.jsonl", b'{"instruction": "a", "output": "b"}\n{"instruction": 1}\n', "Line 2"),
        ("x.jsonl", b"", "holds no records"),
        ("x.json", b"[1, 2]", "no known format"),
        ("x.parquet", b"PAR1 not really", "x|upload"),
        ("x.exe", b"MZ", "no file that can be trained on"),
        ("../../x", b"", "no file that can be trained on"),
        ("x.pkl", b"\x80\x04", "no file that can be trained on"),
        ("x.zip", b"PK\x03\x04", "damaged or no archive"),
        ("x.tar.gz", gzip.compress(b"no tar"), "damaged or no archive|holds no files"),
    ],
)
def test_what_cannot_be_trained_on_is_told_before_anything_is_queued(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        receive(io.BytesIO(content), name, len(content), tmp_path, None, MAX_BYTES)


def test_examples_are_recognised(tmp_path: Path) -> None:
    received = receive(io.BytesIO(b'{"text": "a"}\n{"text": "b"}\n'), "My Data.JSONL", None, tmp_path, None, MAX_BYTES)
    assert (received.path, received.recipe, received.found) == (tmp_path / "upload.jsonl", "dataset", "2 records, text")


def test_a_large_archive_is_refused_before_it_is_all_written(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.py", bytes(50_000_000))
    with pytest.raises(InputError, match="unpacks to more than is allowed"):
        unpack(archive, tmp_path / "out", max_bytes=1_000_000)
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*")) <= 1_100_000


PATHS = (
    "..",
    "../x",
    "/",
    "/etc",
    "roots",
    "link",
    "roots/../../etc",
    "roots/link",
    "\x00",
    "a" * 5000,
    "~",
    "file:///etc",
    "-x",
)


@pytest.mark.parametrize("path", PATHS)
def test_no_path_of_a_request_leaves_the_roots(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inside = tmp_path / "roots" / "here" / "repo"
    inside.mkdir(parents=True)
    (tmp_path / "roots" / "here" / "link").symlink_to("/etc")
    (tmp_path / "link").symlink_to("/etc")
    roots = (str(tmp_path / "roots" / "here"),)
    assert repository_inside(str(inside), roots) == inside
    for given in (path, str(inside / path), str(tmp_path / "roots" / "here" / path)):
        chosen = inside
        with contextlib.suppress(ServiceError):
            chosen = repository_inside(given, roots)
        assert chosen.is_relative_to(tmp_path / "roots" / "here")
    with pytest.raises(ServiceError):
        repository_inside(str(inside), ())


@pytest.mark.parametrize("name", ["SmolLM2-135M-Instruct", "ollama:llama3.2:3b", "Qwen/Qwen2.5-0.5B"])
def test_bases_that_a_request_may_name(name: str) -> None:
    assert check_base(name, ()) == name


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "http://10.0.0.1/x", "ollama:x@http://10.0.0.1", "src/ai_forge", "x"]
)
def test_bases_that_it_may_not(name: str) -> None:
    with pytest.raises(ServiceError, match="There is no base"):
        check_base(name, ())
