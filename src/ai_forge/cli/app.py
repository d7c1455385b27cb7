"""The command line put together, and how it ends: every error on purpose is one line with its exit code.

Exit codes are those of `errors.py`; Ctrl-C ends with 130 and what was done is kept; a reader that goes away ends it as
SIGPIPE ends a program, with 141.
"""

import errno
import io
import os
import re
import shutil
import sys
from typing import Annotated, NoReturn

import typer

from ai_forge import __version__
from ai_forge.cli.agent import agent_app, mcp
from ai_forge.cli.compare import compare
from ai_forge.cli.complete import complete
from ai_forge.cli.data import data_app, handbook
from ai_forge.cli.guardian import guardian_app
from ai_forge.cli.home import backup, clean, restore
from ai_forge.cli.jobs import jobs_app
from ai_forge.cli.keys import keys_app
from ai_forge.cli.look import config_app, doctor, models, runs
from ai_forge.cli.model import ask, chat, rollback, search
from ai_forge.cli.options import Words
from ai_forge.cli.own_tests import own_tests
from ai_forge.cli.questions import questions_app
from ai_forge.cli.serve import serve
from ai_forge.cli.stages import add_stage_commands, plan, run
from ai_forge.errors import AIForgeError, CancelledError, InputError, PrerequisiteError

MAKE, ASK, KEEP, SERVE = "Make a model", "Ask it", "Look and keep", "Serve it, keep it fresh"
app = typer.Typer(
    cls=Words,
    help="Fine-tune a local language model on your repository, see whether it helped, serve it. All on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
INTERRUPTED = 130
# a folder, a link or a pipe lies where a file belongs
IN_THE_WAY = frozenset(
    (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.EINVAL, errno.ENXIO)
)
BROKEN_PIPE = 141
LONG = re.compile(r"\S{500,}")  # no path or name that a person can read

for command in (run, plan):
    app.command(rich_help_panel=MAKE)(command)
add_stage_commands(app, MAKE)
app.command(rich_help_panel=MAKE)(handbook)
app.add_typer(data_app, name="data", rich_help_panel=MAKE)
for command in (ask, chat, search, complete, compare, own_tests):
    app.command(rich_help_panel=ASK)(command)
app.add_typer(questions_app, name="questions", rich_help_panel=ASK)
for command in (doctor, models, runs, rollback, clean, backup, restore):
    app.command(rich_help_panel=KEEP)(command)
app.add_typer(config_app, name="config", rich_help_panel=KEEP)
app.command(rich_help_panel=SERVE)(serve)
for name, group in (("jobs", jobs_app), ("keys", keys_app), ("guardian", guardian_app)):
    app.add_typer(group, name=name, rich_help_panel=SERVE)
app.command(rich_help_panel=SERVE)(mcp)
app.add_typer(agent_app, name="agent", rich_help_panel=SERVE)


def _version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """The command that the words name, and the exit code that says how it ended."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a letter shows another
            stream.reconfigure(errors="replace")
    try:
        _require_text(sys.argv)
        code = _run_command()
        if sys.stdout is not None:
            sys.stdout.flush()
    except AIForgeError as error:
        code = _complain(error)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:  # whoever read the output wants no more of it
        _give_up_stdout()
        code = BROKEN_PIPE
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):  # which typer catches, and ends with 1
            raise
        _give_up_stdout()
        code = BROKEN_PIPE
    except OSError as error:  # a full disk, a folder that lost its rights: one line, whoever was writing
        _give_up_stdout()
        if isinstance(error, shutil.Error) and isinstance(
            error.args[0], list
        ):  # of a folder that was copied: for each file one
            error = OSError(errno.EACCES, error.args[0][0][2], error.args[0][0][0])
        place = error.filename or "the output"
        code = _complain(PrerequisiteError(f"{error.strerror or error} ({place}).", _step(error)))
    except Exception as error:
        usage = getattr(error, "format_message", None)  # the command line's own errors: a wrong word or value
        if usage is None:
            raise  # our bug: the traceback is what its report needs
        if type(error).__name__ == "NoArgsIsHelpError":  # typer keeps its copy of click to itself
            print(usage(), file=sys.stderr)
            sys.exit(2)
        path = getattr(getattr(error, "ctx", None), "command_path", "ai-forge")
        code = _complain(InputError(_sentence(usage() + _given(error)), f"`{path} --help` tells what there is."))
    if code == INTERRUPTED:
        print("\nInterrupted. What was done is kept: the same command continues.", file=sys.stderr)
    sys.exit(code or 0)


def _require_text(words: list[str]) -> None:
    """Bytes that are no UTF-8 arrive as halves of surrogate pairs, which no file of ours, database or page could hold."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            shown = word.encode("utf-8", "replace").decode()
            raise InputError(
                f"The word {shown} is no valid text.", "write it in UTF-8; rename what is called so."
            ) from error


def _sentence(text: str) -> str:
    """With a full stop, where no other sign ends it."""
    return re.sub(r"(?<![.?!])$", ".", text.strip())


def _given(error: Exception) -> str:
    """The value that a wrong value was, which typer leaves out; it is in pydantic's error behind it."""
    details: list[dict[str, object]] = getattr(error.__cause__, "errors", list)()
    return f"; {details[0]['input']!r} was given" if details else ""


def _step(error: OSError) -> str:
    """What helps against an error of the system; the command is then given again, and continues."""
    place = error.filename2 or error.filename  # of a renaming the target
    if isinstance(error, shutil.SpecialFileError):
        return "move it away; the same command makes it again."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space (`ai-forge clean` tells what may go); the same command continues."
    if error.errno == errno.EROFS or place is None:
        return "mend that; the same command continues."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"allow it: chmod u+rwX {place}; the same command continues."
    if error.errno in IN_THE_WAY:
        return f"move what lies there away: mv {place} {place}.moved; the same command makes it again."
    return "mend that; the same command continues."


def _shortened(word: re.Match[str]) -> str:
    return f"{word[0][:80]}… ({len(word[0])} characters)"


def _give_up_stdout() -> None:
    """Throw away what is not written yet, or Python complains again when it flushes at exit."""
    stream = getattr(sys.stdout, "wrapped", sys.stdout)  # by typer, where a reader went away
    if isinstance(stream, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run_command() -> int | None:
    """The command's exit code, where it is not 0. Of the processes that a launcher started the first runs it."""

    def command() -> int | None:
        code: int | None = app(prog_name="ai-forge", standalone_mode=False)  # that of `typer.Exit`; 130 is Ctrl-C
        return code

    if os.environ.get("WORLD_SIZE", "1") == "1":  # set by torchrun and its like
        return command()
    from ai_forge.training.distributed.cluster import in_cluster

    return in_cluster(command)


def _complain(error: AIForgeError) -> int:
    from rich.markup import escape

    from ai_forge.cli.output import stderr

    if not isinstance(error, CancelledError):  # whoever pressed Ctrl-C has been told already
        text = escape(LONG.sub(_shortened, " ".join(str(error).split())))
        stderr().print(f"[red]{error.code}:[/red] {text}", soft_wrap=True)
    return error.exit_code
