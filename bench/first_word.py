"""How long until `ai-forge ask` writes the first word of its answer into a terminal.

    python bench/first_word.py REPOSITORY HOME "QUESTION"

Stdout is a terminal, stderr (where the places are shown first) a pipe: the first byte on stdout is the first of the answer. Medians of
`--rounds` new processes, the first of which is not counted: it reads the files from disk.
"""

import argparse
import json
import os
import pty
import statistics
import subprocess
import sys
import time


def first_byte_s(words: list[str]) -> tuple[float, float]:
    """(seconds to the first byte on stderr, seconds to the first on stdout)."""
    terminal, inside = pty.openpty()
    began = time.perf_counter()
    child = subprocess.Popen(words, stdout=inside, stderr=subprocess.PIPE)
    os.close(inside)
    assert child.stderr is not None
    child.stderr.read(1)
    places = time.perf_counter() - began
    os.read(terminal, 1)
    answer = time.perf_counter() - began
    while True:
        try:
            if not os.read(terminal, 65536):
                break
        except OSError:  # the other end is closed
            break
    child.stderr.read()
    child.wait()
    os.close(terminal)
    return places, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository")
    parser.add_argument("home")
    parser.add_argument("question")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    words = [sys.executable, "-m", "ai_forge", "ask", given.question, "--repo", given.repository, "--home", given.home]
    measured = [first_byte_s(words) for _ in range(given.rounds + 1)][1:]
    names = ("places_s", "answer_s")
    columns = dict(zip(names, zip(*measured, strict=True), strict=True))
    told = {name: {"median": statistics.median(values), "all": values} for name, values in columns.items()}
    print(json.dumps(told | {"load_average": os.getloadavg()[0]}, indent=1))


if __name__ == "__main__":
    main()
