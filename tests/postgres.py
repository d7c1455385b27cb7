"""A real PostgreSQL for tests: Debian's package, a cluster of its own in a temporary folder, started as a user who is not root."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("/usr/lib/postgresql", "/opt/homebrew/opt/postgresql/bin", "/usr/local/opt/postgresql/bin")


def program(name: str) -> str | None:
    """Where one of its programs lies: Debian keeps most of them off the path."""
    found = shutil.which(name)
    debian = sorted(Path(FOLDERS[0]).glob(f"*/bin/{name}"))
    return found if found and not debian else next((str(path) for path in reversed(debian)), found)


def owner() -> str | None:
    """As whom it runs: as us, unless we are root, whom it refuses."""
    if os.geteuid() != 0:
        return None
    return next(name for name in ("postgres", "nobody") if any(user.pw_name == name for user in pwd.getpwall()))


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The URL of an empty database on a free port of 127.0.0.1."""
    initdb, server = program("initdb"), program("postgres")
    assert initdb is not None
    assert server is not None
    user, data = owner(), folder / "postgres"
    data.mkdir()
    if user is not None:
        os.chown(data, pwd.getpwnam(user).pw_uid, -1)
        for parent in (folder, *folder.parents[:2]):  # pytest's folders are for us alone
            parent.chmod(parent.stat().st_mode | 0o711)
    subprocess.run(
        [initdb, "-D", str(data), "-U", "forge", "--auth=trust", "-N"],
        user=user,
        check=True,
        capture_output=True,
        cwd="/",
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [server, "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", "", "-c", "fsync=off"]
    with (folder / "postgres.log").open("wb") as log:
        process = subprocess.Popen(words, user=user, stdout=log, stderr=log, cwd="/")
    try:
        _wait(port, process)
        yield f"postgresql://forge@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(3)  # SIGQUIT: at once, whoever is connected
        process.wait()


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    import psycopg

    for _ in range(200):
        assert process.poll() is None, "PostgreSQL did not start"
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(f"postgresql://forge@127.0.0.1:{port}/postgres", connect_timeout=1).close()
            return
        import time

        time.sleep(0.1)
    raise AssertionError("PostgreSQL does not answer")
