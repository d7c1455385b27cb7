"""What is made of a rule says what the rule says: its share, its exceptions, its limits, its steps, its contradictions."""

from pathlib import Path

import pytest

from ai_forge.data_pipeline.handbook.agent_folder import AgentFolder, parse_file
from ai_forge.data_pipeline.handbook.directives import directives_in
from ai_forge.data_pipeline.handbook.handbook import Handbook, handbook_of


def handbook(*, hold_out: float = 0, **texts: str) -> Handbook:
    """A handbook of files by their names; `step_…` are workflows, `corrections` is that."""
    files = []
    for name, text in texts.items():
        if name == "corrections":
            files.append(parse_file("memory/corrections.md", "correction", text.encode()))
        elif name.startswith("step"):
            files.append(parse_file(f"workflows/{name}.md", "workflow", text.encode()))
        else:
            files.append(parse_file(f"rules/{name}.md", "rule", text.encode()))
    return handbook_of(AgentFolder(Path(), tuple(files)), hold_out=hold_out)


def outputs(made: Handbook, kind: str) -> list[str]:
    return [pair.output for pair in made.pairs if pair.kind == kind]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_about_the_asked_share_of_pairs_is_held_out(share: float) -> None:
    twins = "".join(
        f"## Host {n}\n\nWhen host {n} is full, delete the oldest log of host {n} and say so.\n\n" for n in range(30)
    )
    others = "".join(f"## {w}\n\nNever {w} a table {'by hand ' * n}on Mondays.\n\n" for n, w in enumerate(
        ("drop", "rename", "copy", "lock", "merge", "split", "sort", "index", "truncate", "export", "import", "vacuum")))  # fmt: skip
    made = handbook(hold_out=share, hosts=f"# Hosts\n\n{twins}", tables=f"# Tables\n\n{others}")
    assert len(made.held_out_pairs) <= round(share * len(made.pairs))
    free = len(made.pairs) - sum(pair.path == "rules/hosts.md" for pair in made.pairs)
    assert len(made.held_out_pairs) >= min(round(share * len(made.pairs)), free) - 4


@pytest.mark.parametrize(
    "rule",
    [
        "If the tests fail, fix them before anything else, since nobody can merge.",
        "When a customer is waiting, before anything else, answer the customer.",
        "Drop it before anything else, as it blocks the others.",
        "Always begin with the tests if the change touches the database.",
    ],
)
def test_a_first_step_of_some_tasks_is_no_probe(rule: str) -> None:
    made = handbook(a=f"# Order\n\n{rule}\n")
    assert not made.probes
    assert not [pair for pair in made.pairs if "very first" in pair.instruction]


@pytest.mark.parametrize(
    "rule",
    [
        "A variable with more than 20 characters is too long: rename it in the function.",
        "No branch name exceeds 40 characters.",
        "Sections of the manual must not exceed 30 lines.",
        "A docstring has at most 8 lines.",
        "Reports must exceed 50 lines.",
        "An answer is never under 20 words.",
        "A commit message should be longer than 10 words.",
        "Answers have no fewer than 50 words.",
    ],
)
def test_what_is_no_limit_of_code_or_text_is_no_probe(rule: str) -> None:
    assert not handbook(a=f"# Sizes\n\n{rule}\n").probes


@pytest.mark.parametrize(
    ("rule", "limit", "unit"),
    [
        ("Functions longer than 40 lines are split.", 40, "lines"),
        ("Lines must not exceed 100 characters.", 100, "characters"),
        ("A commit message has at most 12 words.", 12, "words"),
        ("No module may grow over 500 lines.", 500, "lines"),
    ],
)
def test_limits_still_are(rule: str, limit: int, unit: str) -> None:
    check = handbook(a=f"# Sizes\n\n- {rule}\n").probes[0].check
    assert (check.limit, check.unit) == (limit, unit)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("- Branches:\n  - must be deleted after the merge\n    - unless a release was cut from them\n",
         "Branches must be deleted after the merge, unless a release was cut from them"),
        ("- Secrets\n  - never commit them\n    - except test keys that are marked as such\n",
         "Secrets never commit them, except test keys that are marked as such"),
        ("1. Migrations\n   - should be reversible\n     - exceptions need a note by the owner\n",
         "Migrations should be reversible, exceptions need a note by the owner"),
    ],
)  # fmt: skip
def test_a_nested_rule_keeps_its_subject_and_its_exception(text: str, whole: str) -> None:
    (section,) = parse_file("rules/a.md", "rule", f"# Rules\n\n{text}".encode()).sections
    assert whole in [directive.text for directive in directives_in(section, all_items=True)]
    told = {" ".join(pair.output.split()) for pair in handbook(a=f"# Rules\n\n{text}").pairs if pair.kind == "scenario"}
    assert not any(whole.startswith(output) and output != whole for output in told)


@pytest.mark.parametrize(
    "text",
    [
        "Never call `requests` directly. Use the client in `net.py` instead.",
        "Do not swallow exceptions. Unless the call is a best-effort one, log and raise.",
        "Avoid global state. It makes tests depend on each other.",
    ],
)
def test_what_follows_a_prohibition_stays_with_it(text: str) -> None:
    assert outputs(handbook(a=f"# Code\n\nSome words of welcome.\n\n{text}\n"), "scenario") == [text]


def test_a_correction_given_twice_counts_once() -> None:
    row = "| Used `time.sleep` in a test | Wait for the event |\n"
    later = "## Later\n\nMistake: Used `time.sleep` in a test\nRule: Wait for the event.\n"
    text = f"# C\n\n| Mistake | Correction |\n|---|---|\n{row}{row}\n{later}"
    made = handbook(corrections=text)
    assert len(made.preferences) == 1
    assert made.rejected["same_correction"] == 2


STEPS = """# Roll out

1. Build the image:

   ```sh
   make image
   ```
2. Push it.
   - to both registries
   - with the commit as its tag
3. If the smoke test fails, go back to step 1.
4. Switch the traffic.
"""


def test_a_step_is_whole_and_none_follows_where_the_work_may_end() -> None:
    made = handbook(step_a=STEPS)
    asked = {pair.instruction: pair.output for pair in made.pairs if pair.kind == "step"}
    assert asked["This step is done: Build the image:\nWhat is next?"] == (
        "Push it.\n- to both registries\n- with the commit as its tag"
    )
    assert not any("smoke test" in instruction for instruction in asked)
    assert "Switch the traffic." not in asked.values()


@pytest.mark.parametrize(
    "text",
    [
        "# Review\n\n- Read the tests first.\n- Run them.\n\n## Large changes\n\nAsk for a walk-through.\n",
        "# Review\n\n```sh\nmake check\n```\n\n## Large changes\n\nAsk for a walk-through.\n\n## Small\n\nGo.\n",
        "# Review\n\n| When | Who |\n|---|---|\n| always | two people |\n\n## Large changes\n\nAsk for a walk-through.\n",
    ],
)
def test_an_overview_is_told_only_where_it_holds_what_stands_on_top(text: str) -> None:
    assert not [
        pair for pair in handbook(a=text).pairs if "cover" in pair.instruction or "overview" in pair.instruction
    ]


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("Functions have at most 40 lines.", "No function exceeds 60 lines.", "two different limits"),
        (
            "A summary has at most 50 words.",
            "Summaries have no fewer than 80 words.",
            "the least is more than the most",
        ),
        ("Avoid global variables.", "Use global variables.", "one asks for what the other forbids"),
        ("Prefer tabs over spaces.", "Prefer spaces over tabs.", "one asks for what the other forbids"),
        ("Tests must not use the network.", "Tests must use the network.", "one asks for what the other forbids"),
        ("Every task starts with a plan.", "Every task starts with the tests.", "two different first steps"),
    ],
)
def test_contradictions_are_told_with_both_places(first: str, second: str, reason: str) -> None:
    (found,) = handbook(a=f"# A\n\n{first}\n", b=f"# B\n\nWords.\n\n{second}\n").contradictions
    assert str(found) == f'rules/a.md:3 "{first}" and rules/b.md:5 "{second}": {reason}'


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Never push on Fridays.", "Always push after the tests."),
        ("Functions have at most 40 lines.", "Files have at most 300 lines."),
        ("Use `structlog`.", "Never use `print`."),
        ("An answer has at least 20 words.", "An answer has at most 100 words."),
        ("No file exceeds 300 lines.", "Files stay within 300 lines."),
    ],
)
def test_rules_that_go_together_are_not_called_a_contradiction(first: str, second: str) -> None:
    assert handbook(a=f"# A\n\n{first}\n", b=f"# B\n\n{second}\n").contradictions == ()


@pytest.mark.parametrize(
    ("rule", "phrase"),
    [
        (
            'Say who you are: begin your first answer of a task with "Identity audit:", then your role.',
            "Identity audit",
        ),
        ('Start each reply with "Plan:".', "Plan"),
        ('Every response to a reviewer ends with the word "Over".', "Over"),
    ],
)
@pytest.mark.parametrize("item", ["-", "1."])
def test_what_every_answer_must_hold_is_probed_on_ordinary_tasks(rule: str, phrase: str, item: str) -> None:
    made = handbook(a=f"# Answers\n\n{item} {rule}\n")
    assert len(made.probes) == 3
    for probe in made.probes:
        assert probe.prompt.startswith("Please ")
        assert phrase.lower() not in probe.prompt.lower()
        assert probe.passes(f"{phrase}: I move the settings.\n{phrase}")
        assert not probe.passes("I move the settings.")


@pytest.mark.parametrize(
    ("rule", "asked"),
    [
        ("Amounts are the one thing that must never be wrong.", None),
        ("A log is what every job should keep.", None),
        ("A job that fails must page its owner.", "What if a job that fails did not page its owner?"),
        ("Do not disable TLS verification, not even in tests.", "I want to disable TLS verification."),
        ("Never push on a Friday, including hotfixes.", "I want to push on a Friday."),
        ("Never log passwords, tokens or keys.", "I want to log passwords, tokens or keys."),
    ],
)
def test_a_situation_is_what_somebody_would_say(rule: str, asked: str | None) -> None:
    made = handbook(a=f"# Work\n\n- {rule}\n")
    situations = [pair.instruction for pair in made.pairs if pair.kind == "scenario"]
    if asked is None:
        assert situations == []
    else:
        assert [text.startswith(asked) for text in situations] == [True]
