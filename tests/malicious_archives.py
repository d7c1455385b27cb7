"""Two hundred archives that try to write outside, to fill the disk, to crash, or to leave something that acts later."""

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile
from collections.abc import Iterator

NAMES = (
    "../evil",
    "../../../../../../tmp/evil",
    "a/../../evil",
    "a/b/../../../evil",
    "/evil",
    "//evil",
    "/tmp/evil",
    "..\\evil",
    "a\\..\\..\\evil",
    "\\evil",
    "C:\\evil",
    "C:evil",
    "c:/evil",
    "\\\\server\\share\\evil",
    "a/\x00/../../evil",
    "evil\x00.py",
    "a\nb/evil",
    "./../evil",
    "a/./../../evil",
    "..",
    "../",
    "a/..",
    "....//..//evil",
    "~/../../evil",
    "x" * 300,
    "/".join(["d"] * 100) + "/evil",
    " /evil",
    "\u202e/../evil",
    "..\u2215evil/../../evil",
    "%2e%2e/../evil",
)
GIT = (
    ".git/hooks/post-checkout",
    ".git/config",
    ".git/config.worktree",
    ".git/commondir",
    ".git/objects/info/alternates",
    ".git/worktrees/x/gitdir",
    ".git/modules/x/config",
    "repo/.git/hooks/pre-commit",
    "repo/.git/config",
    "sub/.git",
    ".GIT/hooks/post-checkout",
    ".Git/config",
)
CONTENT = b"print('outside')\n"


def zip_of(*members: tuple[str, bytes, int]) -> bytes:
    """A zip of (name, content, mode); names go in as they are."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content, mode in members:
            info = zipfile.ZipInfo("placeholder")
            info.filename = info.orig_filename = name
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, content)
    return out.getvalue()


def tar_of(*members: tuple[str, bytes, bytes, str]) -> bytes:
    """A tar of (name, content, type, link)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for name, content, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            packed.addfile(info, io.BytesIO(content))
    return out.getvalue()


def links(outside: str) -> Iterator[tuple[str, bytes]]:
    """A link that leads out, then a file through it."""
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        for target in (outside, "../../..", "/", "/etc", ".", "b"):
            chain = (
                ("b", b"", kind, "/") if target == "b" else ("ok.py", b"x = 1\n", tarfile.REGTYPE, ""),
                ("a", b"", kind, target),
                ("a/evil", CONTENT, tarfile.REGTYPE, ""),
            )
            yield "link.tar", tar_of(*chain)
    for target in (outside, "..", "/", "a"):
        yield (
            "link.zip",
            zip_of(("a", target.encode(), 0o120777), ("a/evil", CONTENT, 0o100644), ("ok.py", b"", 0o100644)),
        )


def odd_members() -> Iterator[tuple[str, bytes]]:
    """Devices, pipes, names that stand twice, files that are folders."""
    for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, b"S", b"Z"):
        yield "odd.tar", tar_of(("odd", b"", kind, ""), ("ok.py", b"x = 1\n", tarfile.REGTYPE, ""))
    regular = tarfile.REGTYPE
    yield "twice.tar", tar_of(("a", b"1", regular, ""), ("a", b"2", regular, ""))
    yield "case.tar", tar_of(("a.py", b"1", regular, ""), ("A.py", b"2", regular, ""))
    yield "both.tar", tar_of(("a", b"1", regular, ""), ("a/b", b"2", regular, ""))
    yield "both.zip", zip_of(("a", b"1", 0o100644), ("a/b", b"2", 0o100644))
    yield "setuid.zip", zip_of(("a.py", b"1", 0o104755))
    yield "dots.zip", zip_of(("...", b"1", 0o100644), ("a. ", b"2", 0o100644))


def bombs() -> Iterator[tuple[str, bytes]]:
    """What unpacks to more than it says, or than there is room for."""
    zeros = bytes(3_000_000)
    yield "bomb.zip", zip_of(("a", zeros, 0o100644))
    yield "many.zip", zip_of(*((f"{i}", zeros[:100_000], 0o100644) for i in range(25)))
    bomb = tar_of(("a", zeros, tarfile.REGTYPE, ""))
    for ending, pack in ((".tar.gz", gzip.compress), (".tar.bz2", bz2.compress), (".tar.xz", lzma.compress)):
        yield f"bomb{ending}", pack(bomb)
    lying = bytearray(zip_of(("a", zeros, 0o100644)))
    at = lying.rindex(b"PK\x01\x02")
    lying[at + 24 : at + 28] = struct.pack("<I", 10)  # the directory says ten bytes
    yield "lying.zip", bytes(lying)
    huge = bytearray(tar_of(("a", b"1", tarfile.REGTYPE, "")))
    for ending in (b"77777777777", b"-0000000001", b"99999999999"):
        huge[124:135] = ending
        huge[148:156] = b"        "
        huge[148:156] = b"%06o\0 " % sum(huge[:512])
        yield "size.tar", bytes(huge)
    encrypted = bytearray(zip_of(("a", b"secret", 0o100644)))
    encrypted[6] |= 1
    encrypted[encrypted.rindex(b"PK\x01\x02") + 8] |= 1
    yield "locked.zip", bytes(encrypted)


def damaged(random_bits: random.Random) -> Iterator[tuple[str, bytes]]:
    """Sound archives with some bytes changed or cut off, and things that are none."""
    sound = {
        "x.zip": zip_of(("a.py", CONTENT * 9, 0o100644), ("b/c.py", CONTENT, 0o100644)),
        "x.tar": tar_of(("a.py", CONTENT * 9, tarfile.REGTYPE, ""), ("b/c.py", CONTENT, tarfile.REGTYPE, "")),
    }
    sound["x.tar.gz"] = gzip.compress(sound["x.tar"])
    sound["x.tar.xz"] = lzma.compress(sound["x.tar"])
    while True:
        for name, content in sound.items():
            changed = bytearray(content)
            for _ in range(random_bits.randint(1, 12)):
                changed[random_bits.randrange(len(changed))] = random_bits.randrange(256)
            yield name, bytes(changed)
            yield name, content[: random_bits.randrange(len(content))]
            yield name, random_bits.randbytes(random_bits.randrange(600))


def malicious_archives(outside: str, n: int = 200) -> list[tuple[str, bytes]]:
    """(file name, content) of `n` archives, the same each time; `outside` is where some of them point."""
    found: list[tuple[str, bytes]] = []
    for name in NAMES:
        found.append(("name.zip", zip_of(("ok.py", b"x = 1\n", 0o100644), (name, CONTENT, 0o100644))))
        if "\x00" not in name:
            found.append(
                ("name.tar", tar_of(("ok.py", b"x = 1\n", tarfile.REGTYPE, ""), (name, CONTENT, tarfile.REGTYPE, "")))
            )
    for name in GIT:
        members = (("repo/ok.py", b"x = 1\n", 0o100644), (name, b"[core]\n\tfsmonitor = touch /evil\n", 0o100755))
        found.append(("git.zip", zip_of(*members)))
    found += [*links(outside), *odd_members(), *bombs()]
    rest = damaged(random.Random(7))
    while len(found) < n:
        found.append(next(rest))
    return found
