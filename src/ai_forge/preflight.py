"""Find out all that stands in the way before hours of work begin, not one thing at a time.

A check is a function that raises what is wrong; whoever starts the work lists those that apply. For a training of a repository:

    require([
        lambda: require_disk(workspace.root, n_bytes, "Training, merging and exporting"),
        lambda: require_fit(base.folder, config, n_here),
        lambda: check_exportable(base.folder, kind, ollama=ollama),
    ])
"""

from collections.abc import Callable, Iterable

from ai_forge.errors import AIForgeError, InputError, PrerequisiteError, RefusedError, TransientError

Check = Callable[[], object]
"""Raises an `AIForgeError` for what stands in the way; what it returns does not matter."""
# settings may be changed at once, a machine may not; what passes by itself comes last
MOST_URGENT_FIRST = (InputError, PrerequisiteError, RefusedError, TransientError)


def problems(checks: Iterable[Check]) -> list[AIForgeError]:
    """What each check that fails says, those first that the user can mend at the desk.

    A check that fails in any other way is a bug and ends the search.
    """
    found = []
    for check in checks:
        try:
            check()
        except AIForgeError as error:
            found.append(error)
    return sorted(found, key=_urgency)  # stable: problems of one class stay in the order of their checks


def require(checks: Iterable[Check]) -> None:
    """Run all checks and raise their problems together, as one error of the class of the most urgent.

    >>> def no_template():
    ...     raise InputError("The base has no chat template.", "choose another base.")
    >>> def no_disk():
    ...     raise PrerequisiteError("1.0 GB are free, 9.0 GB are needed.", "free some space.")
    >>> require([no_disk, no_template])
    Traceback (most recent call last):
    ai_forge.errors.InputError: 2 things stand in the way.
    1. The base has no chat template. Next: choose another base.
    2. 1.0 GB are free, 9.0 GB are needed. Next: free some space.
    """
    found = problems(checks)
    if len(found) == 1:  # as it is, with its own next step
        raise found[0]
    if found:
        listed = "\n".join(f"{number}. {problem}" for number, problem in enumerate(found, 1))
        raise type(found[0])(f"{len(found)} things stand in the way.\n{listed}") from found[0]


def _urgency(problem: AIForgeError) -> int:
    for place, kind in enumerate(MOST_URGENT_FIRST):
        if isinstance(problem, kind):
            return place
    return len(MOST_URGENT_FIRST)
