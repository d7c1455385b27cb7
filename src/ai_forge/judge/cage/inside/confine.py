"""A room for one job: what bubblewrap gave to the worker is taken again from each fork, and more.

`Keeper.fork_in_a_room` and `enter_room` give a job process, mount and IPC namespaces of its own, with an empty /tmp and nothing
in /proc, so that whatever it starts, writes or keeps is gone with it: when the first process of a process
namespace ends, the kernel kills all others. `give_up` then takes capabilities and system calls from the process that will
run the code. Linux only, but for `limit_resources`; the calls that Python 3.11 lacks go through ctypes.

The filter denies what code never needs and kernels were broken by: namespaces, mounts, ptrace, keys, bpf, io_uring, and
sockets other than unix and IP (a virtual machine's vsock is bound to no network namespace). Numbers are the kernel's, for x86-64
(run) and arm64 (written from `asm-generic/unistd.h`, not run).
"""

import contextlib
import ctypes
import functools
import os
import platform
import resource
import struct
import sys
from collections.abc import Sequence

from .plain import Message

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x08000000, 0x10000000, 0x20000000
CLONE_ANY_NEW = 0x7E020000
MS_NOSUID, MS_NODEV, MS_RDONLY, MS_BIND, MS_REC = 2, 4, 1, 4096, 16384
PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 4, 38, 22
SECCOMP_MODE_FILTER = 2
CAP_V3 = 0x20080522
NOBODY = 65534
SHM_BYTES = 16_000_000  # of a command: semaphores of `multiprocessing` lie there
OPEN_FILES = 256
WATCHERS = 2  # the keeper and a command's init count as well
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
# (x86-64, arm64)
CLONE, CLONE3, SOCKET = (56, 220), (435, 435), (41, 198)
DENIED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "personality": (135, 92),
    "quotactl": (179, 60),
    "acct": (163, 89),
    "syslog": (103, 116),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "reboot": (169, 142),
    "swapon": (167, 224),
}
ALLOWED_SOCKETS = (1, 2, 10)  # unix, IPv4, IPv6
EPERM, ENOSYS = 1, 38
# classic BPF: load a word, compare, return
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def become_nobody() -> None:
    """Where the worker was started by root: root is bound by no limit on processes."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        # the change took it away, and with it a fork's right to write its own uid_map
        _check(_libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "dumpable")
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    seccomp_filter()  # now, so that an unknown machine is told before any code is run


class Keeper:
    """What the process that makes rooms holds: its /proc, which nobody sees any more, and its process namespace.

    Made once: the caller gets a user namespace, in which it may make rooms, mounts of its own, and (its next child) a process
    namespace. `go_on` is called in that child. Raises OSError.
    """

    def __init__(self) -> None:
        uid, gid = os.getuid(), os.getgid()
        self.processes = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS), "unshare")
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as handle:  # noqa: PTH123  pathlib costs an import in every cage
                handle.write(text)

    def go_on(self) -> None:
        """Take a hold of what is needed from /proc, and cover it."""
        self._own = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self.outside = set(os.listdir(self.processes))  # noqa: PTH208
        _mount_empty("/proc", "size=4096,mode=555", MS_RDONLY)
        _mount_empty("/dev/shm", "size=4096,mode=555", MS_RDONLY)

    def fork_in_a_room(self) -> int:
        """`os.fork`, with the child as the first process of a process namespace of its own. Raises OSError."""
        _check(_libc.unshare(CLONE_NEWPID), "unshare")
        child = os.fork()
        if child:  # later forks are to stay here again, and the next room is not to lie in this one
            _check(_libc.setns(self._own, CLONE_NEWPID), "setns")
        return child

    def memory_bytes(self) -> int:
        """What all processes of the room hold together: their own pages, and those of their shared memory."""
        total = 0
        for name in os.listdir(self.processes):  # noqa: PTH208
            if name.isdigit() and name not in self.outside:
                with contextlib.suppress(OSError, ValueError):  # it ended meanwhile
                    status = os.open(f"{name}/status", os.O_RDONLY, dir_fd=self.processes)
                    with open(status) as lines:  # noqa: PTH123
                        for line in lines:
                            if line.startswith(("RssAnon:", "RssShmem:")):
                                total += int(line.split()[1]) * 1024
        return total


def enter_room(tmp_bytes: int, in_tmp: Sequence[str], shm_bytes: int = 0) -> None:
    """Mounts and IPC of the caller's own: an empty /tmp, and a /dev/shm that can be written if it has a size. Raises OSError.

    What lies in /tmp outside the room is gone, but for the folders `in_tmp`.
    """
    _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWIPC), "unshare")
    kept = [(os.open(folder, os.O_PATH), folder) for folder in in_tmp]
    _mount_empty("/tmp", f"size={tmp_bytes},nr_inodes=20000,mode=1777", 0)
    for descriptor, folder in kept:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        os.fchdir(descriptor)  # by its descriptor: its path is covered, and so is /proc
        _check(_libc.mount(b".", folder.encode(), None, MS_BIND | MS_REC, None), f"bind {folder}")
        os.close(descriptor)
    if shm_bytes:
        _mount_empty("/dev/shm", f"size={shm_bytes},nr_inodes=1000,mode=1777", 0)


def _mount_empty(path: str, options: str, flags: int) -> None:
    result = _libc.mount(b"tmpfs", path.encode(), b"tmpfs", MS_NOSUID | MS_NODEV | flags, options.encode())
    _check(result, f"mount {path}")


def limit_resources(limits: Message) -> None:
    """Hold the calling process, and each that it starts, to `limits`."""
    cpu_s = max(1, round(limits["cpu_s"]))
    for kind, most in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NPROC, limits["n_processes"] + WATCHERS),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        try:
            resource.setrlimit(kind, (most, most))
        except (ValueError, OSError):
            if sys.platform == "linux":  # macOS knows some of them by name only
                raise


def give_up() -> None:
    """Take from the calling process all capabilities and the denied system calls, for good. Raises OSError."""
    header, nothing = struct.pack("Ii", CAP_V3, 0), bytes(24)
    _check(_libc.capset(header, nothing), "capset")
    described, _ = seccomp_filter()
    _check(_libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, described, 0, 0), "seccomp")


@functools.cache  # made by the worker, and every fork has it
def seccomp_filter() -> tuple[bytes, "ctypes.Array[ctypes.c_char]"]:
    """The filter for this machine: its length and address as the kernel reads them, and the memory that lies there.

    Raises OSError for another machine than x86-64 and arm64.
    """
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise OSError(ENOSYS, f"there is no system call filter for {machine}")
    audit, column = ARCHITECTURES[machine]
    rows = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, audit), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    if machine == "x86_64":  # the x32 numbers would name the same calls a second time
        rows += [(AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, ERRNO | EPERM)]
    for numbers in DENIED.values():
        rows += [(EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, ERRNO | EPERM)]
    # its flags lie in memory, where a filter cannot look; libc falls back to clone
    rows += [(EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, ERRNO | ENOSYS)]
    rows += [(EQUAL, 0, 4, CLONE[column]), (LOAD, 0, 0, 16), (ANY_BIT, 0, 1, CLONE_ANY_NEW)]
    rows += [(RETURN, 0, 0, ERRNO | EPERM), (RETURN, 0, 0, ALLOW)]
    rows += [(EQUAL, 0, 2 + len(ALLOWED_SOCKETS), SOCKET[column]), (LOAD, 0, 0, 16)]
    rows += [(EQUAL, len(ALLOWED_SOCKETS) - i, 0, family) for i, family in enumerate(ALLOWED_SOCKETS)]
    rows += [(RETURN, 0, 0, ERRNO | EPERM), (RETURN, 0, 0, ALLOW)]
    program = b"".join(struct.pack("HBBI", *row) for row in rows)
    held = ctypes.create_string_buffer(program, len(program))
    return struct.pack("HxxxxxxQ", len(rows), ctypes.addressof(held)), held
