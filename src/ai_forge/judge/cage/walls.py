"""The outer walls: the command that starts a worker where it sees an interpreter, what it is shown, and nothing else.

Everything is read-only but an empty /tmp; environment, network, processes and IPC are its own; the interpreter's
site-packages are covered unless they are asked for: the answers of a benchmark may lie there.
"""

import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ai_forge.errors import PrerequisiteError

INSIDE = Path(__file__).parent / "inside"
SEEN_AT, SOURCE = "/cage/inside", "/cage/source"
START = "import sys; sys.path.insert(0, {folder!r}); from inside import worker; sys.path.pop(0); worker.main({role!r})"
SYSTEM_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/lib32", "/usr/libexec")
LINKED_FOLDERS = ("/lib", "/lib64", "/lib32", "/bin", "/sbin")
TOOLS = ("/usr/bin", "/usr/sbin", "/usr/share", "/etc/alternatives", "/etc/localtime", "/etc/ssl")
NAMESPACES_NEXT = (
    "allow user namespaces. On Ubuntu: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0; in a container: "
    "start it with --security-opt seccomp=unconfined --security-opt systempaths=unconfined, or measure on the host."
)


def require_walls() -> str:
    """The program that makes the walls.

    Raises:
        PrerequisiteError: it is not on PATH, or there is none for this system.
    """
    if sys.platform == "linux":
        program, next_step = "bwrap", "install bubblewrap: sudo apt install bubblewrap (or dnf, pacman, apk)."
    elif sys.platform == "darwin":
        program, next_step = "sandbox-exec", "it is part of macOS: put /usr/bin on PATH."
    else:
        raise PrerequisiteError(
            f"There is no cage for {sys.platform}; generated code is not run.", "use Linux or macOS."
        )
    found = shutil.which(program)
    if found is None:
        raise PrerequisiteError(
            f"{program} is not on PATH; generated code is run in its cage or not at all.", next_step
        )
    return found


@dataclass(frozen=True)
class Seen:
    """What a worker sees beside its interpreter: `readable` folders where they lie, `source` at `SOURCE`, `tools` or not.

    `tools` are the system's programs. Where root makes the walls it is nobody who looks: what is closed to others stays closed.
    `scratch` is the folder for files on macOS, where no /tmp of one's own can be had.
    """

    readable: tuple[Path, ...] = ()
    source: Path | None = None
    tools: bool = False
    scratch: Path | None = None


def inside_walls(role: str, seen: Seen) -> list[str]:
    """The command line of a worker. Raises PrerequisiteError where there are no walls to be had."""
    program = require_walls()
    if sys.platform == "darwin":
        start = START.format(folder=str(INSIDE.parent), role="single")
        places = [*seen.readable, *([seen.source] if seen.source else [])]
        return [program, "-p", macos_profile(places, seen.scratch or Path("/tmp")), *_interpreter(), "-c", start]
    start = START.format(folder=str(Path(SEEN_AT).parent), role=role)
    return [program, *_bubblewrap(seen), *_interpreter(), "-c", start]


def _interpreter() -> list[str]:
    # isolated, without site-packages, without writing bytecode
    return [os.path.realpath(sys.executable), "-I", "-S", "-B"]


def _bubblewrap(seen: Seen) -> list[str]:
    rows = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    rows += ["--die-with-parent", "--new-session", "--clearenv", "--hostname", "cage", "--cap-drop", "ALL"]
    if os.getuid() == 0:  # only to become nobody: root would be bound by no limit on processes
        rows += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        rows += ["--unshare-user"]
    rows += ["--setenv", "PATH", "/usr/bin:/bin", "--setenv", "HOME", "/tmp", "--setenv", "LANG", "C.UTF-8"]
    rows += ["--setenv", "LD_BIND_NOW", "1"]  # once in the worker, instead of in every fork
    rows += ["--tmpfs", "/tmp"]  # first: what is readable may lie in it
    interpreter = [Path(os.path.realpath(sys.executable)), Path(sys.base_prefix) / "lib"]
    for place in (Path("/usr/lib"), Path("/etc/ld.so.cache"), Path(SEEN_AT), *interpreter, *seen.readable):
        # made by bubblewrap itself the folders above would be closed, and nobody could not pass them
        for above in reversed(place.parents[:-1]):
            rows += ["--perms", "0755", "--dir", str(above)]
    for system in SYSTEM_FOLDERS + (TOOLS if seen.tools else ()):
        rows += ["--ro-bind-try", system, system]
    for linked in map(Path, LINKED_FOLDERS):
        if linked.is_symlink():
            rows += ["--symlink", str(linked.readlink()), str(linked)]
        elif linked.is_dir() and (seen.tools or "lib" in linked.name):
            rows += ["--ro-bind", str(linked), str(linked)]
    rows += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for place in interpreter:
        rows += ["--ro-bind", str(place), str(place)]
    for package in _site_packages():
        rows += ["--tmpfs", package, "--remount-ro", package]
    for place in seen.readable:
        rows += ["--ro-bind", str(place), str(place)]
    if seen.source:
        rows += ["--ro-bind", str(seen.source), SOURCE]
    rows += ["--ro-bind", str(INSIDE), SEEN_AT, "--proc", "/proc", "--dev", "/dev"]
    return [*rows, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]


def _site_packages() -> list[str]:
    """The folders of installed packages below what every cage sees."""
    base = Path(sys.base_prefix) / "lib"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    places = {base / version / "site-packages", base / "python3" / "dist-packages", base / version / "dist-packages"}
    places |= {Path("/usr/lib/python3/dist-packages"), Path("/usr/lib") / version / "site-packages"}
    return sorted(str(place) for place in places if place.is_dir())


def macos_profile(readable: Sequence[Path], scratch: Path) -> str:
    """A profile for sandbox-exec: everything is denied but reading the interpreter and writing to `scratch`.

    Written to the profile language as Apple's own profiles in /System/Library/Sandbox show it; not run by us.
    """
    places = [Path(sys.base_prefix), INSIDE, Path(sysconfig.get_path("stdlib")), *readable]
    reads = [f'(subpath "{_quoted(place)}")' for place in places]
    reads += [f'(subpath "{place}")' for place in ("/usr/lib", "/System/Library", "/Library/Apple")]
    reads += [
        f'(literal "{place}")' for place in ("/", "/dev/null", "/dev/random", "/dev/urandom", "/private/etc/localtime")
    ]
    packages = "".join(f'(subpath "{_quoted(Path(place))}")' for place in _site_packages() or ["/nowhere"])
    denied = "" if readable else f"(deny file-read* {packages})\n"
    return (
        "(version 1)\n(deny default)\n(deny network*)\n(deny process-fork)\n"
        f'(allow process-exec (literal "{_quoted(Path(os.path.realpath(sys.executable)))}"))\n'
        "(allow sysctl-read)\n(allow file-read-metadata)\n"
        f"(allow file-read* {' '.join(reads)})\n{denied}"
        f'(allow file-read* file-write* (subpath "{_quoted(scratch)}"))\n'
        '(allow file-write-data (literal "/dev/null"))\n'
    )


def _quoted(place: Path) -> str:
    return str(place.resolve()).replace("\\", "\\\\").replace('"', '\\"')
