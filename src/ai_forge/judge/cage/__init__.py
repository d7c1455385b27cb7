"""Generated code runs in a cage or not at all.

    Grader ─┬─ Cage "rooms"   the code: no network, no home, an empty /tmp, a room of its own for each sample
            └─ Cage "grader"  its test: another process, other namespaces; plain data passes between the two
    run_command               a command (a test runner) in a room, on a copy of a folder

bubblewrap makes the walls on Linux, sandbox-exec on macOS (written to its documented profile language, not run by us). Where
they cannot be made nothing is run: `PrerequisiteError` says why, and what to do; there is no fallback.

The verdict comes from the grader, who has the job's nonce; the code never shares a process with it. A command that tests
code in its own process (pytest) cannot be that sure: see `own_tests` for what is done there.
"""

from ai_forge.judge.cage.cage import Cage, Ended, Limits, run_command
from ai_forge.judge.cage.grader import Grader, Sample, Verdict, grade_all
from ai_forge.judge.cage.walls import Seen, require_walls

__all__ = [
    "Cage",
    "Ended",
    "Grader",
    "Limits",
    "Sample",
    "Seen",
    "Verdict",
    "grade_all",
    "require_walls",
    "run_command",
]
