"""Twenty commands as a terminal shows them, 80 and 40 columns wide: writes `docs/tour.md`.

    python docs/tour.py REPOSITORY HOME      (a repository whose `ai-forge run` is through, and where it was kept)

Each command runs in a terminal of its own, so what stands there is what a person sees. Nothing is edited but paths.
"""

import argparse
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path

OUT = Path(__file__).parent / "tour.md"
WIDTHS = (80, 40)
LONGEST = 40
"""Lines of a command that are kept: of longer ones the beginning."""
TOUR = (
    ("What there is.", "--help"),
    ("Does it run here?", "doctor"),
    ("What is done, and what would it cost?", "plan"),
    ("Everything: nothing changed since the last run.", "run"),
    ("What would be shown to the model, and why?", 'search "how do I hide what is typed at a prompt?" -k 5'),
    ("Asked.", 'ask "What does get_app_dir return?"'),
    ("Code is completed; a base of this size has nothing to say here.", "complete src/click/utils.py:54"),
    ("Which bases and models are there?", "models"),
    ("What was run?", "runs"),
    ("Did it help?", "evaluate"),
    ("Is the data any good?", "validate"),
    ("What was mined?", "mine"),
    ("Questions of your own: there are none yet.", "questions check"),
    ("Is the model stale?", "guardian status"),
    ("A file for others.", "export"),
    ("Back to the version before: there is none yet.", "rollback"),
    ("What takes room? Nothing is removed without being asked to.", "clean"),
    ("The queue of the service.", "jobs list"),
    ("Where does a setting come from?", "config show"),
    ("A value that cannot be.", "run --steps 0"),
)
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def shown(command: str, columns: int, folder: Path, home: Path) -> str:
    """What the command writes into a terminal of so many columns, without colours; the last state of each line."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        environment = os.environ | {"AI_FORGE_HOME": str(home), "TERM": "xterm", "LANG": "C.UTF-8"}
        words = f"stty cols {columns} rows 50; exec {sys.executable} -m ai_forge {command}"
        os.execve("/bin/sh", ["/bin/sh", "-c", words], environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    parts = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(terminal)
    os.waitpid(pid, 0)
    return settled(b"".join(parts).decode("utf-8", "replace"))


def settled(text: str) -> str:
    """The lines as they stand in the end: moves up and to the start of a line write over what was there."""
    lines, row, column = [""], 0, 0
    for piece in re.split(rf"({_ESCAPE.pattern}|\r|\n)", text):
        if piece == "\n":
            row, column = row + 1, 0
            if row == len(lines):
                lines.append("")
        elif piece == "\r":
            column = 0
        elif up := re.fullmatch(r"\x1b\[(\d*)A", piece):
            row = max(0, row - int(up[1] or 1))
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif piece and not _ESCAPE.fullmatch(piece):
            kept = lines[row].ljust(column)
            lines[row] = kept[:column] + piece + kept[column + len(piece) :]
            column += len(piece)
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def page(folder: Path, home: Path) -> str:
    """The tour as Markdown."""
    parts = [
        "# A tour in twenty commands",
        "",
        f"What a terminal shows, {WIDTHS[0]} and {WIDTHS[1]} columns wide, in a checkout of click whose `ai-forge run` is through. "
        f"Written by `python docs/tour.py`; of long ones the first {LONGEST} lines.",
    ]
    for number, (why, command) in enumerate(TOUR, start=1):
        parts += ["", f"## {number}. `ai-forge {command}`", "", why]
        for columns in WIDTHS:
            text = shown(command, columns, folder, home)
            for path, name in ((home, "~/.ai-forge"), (folder, f"~/{folder.name}"), (Path.home(), "~")):
                text = text.replace(str(path), name)
            lines = text.split("\n")
            if len(lines) > LONGEST:
                lines = [*lines[:LONGEST], f"… {len(lines) - LONGEST} more lines"]
            parts += ["", "```text", *lines, "```"]
            print(f"{number} of {len(TOUR)}: {command}, {columns} columns, {len(lines)} lines", file=sys.stderr)
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("home", type=Path)
    given = parser.parse_args()
    OUT.write_text(page(given.repository.resolve(), given.home.resolve()), encoding="utf-8")
