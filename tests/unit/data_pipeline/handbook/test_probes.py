"""Which rules a machine can check, and which answers pass."""

import pytest

from ai_forge.data_pipeline.handbook.directives import check_of, directives_in
from ai_forge.data_pipeline.schemas.probes import FirstStepCheck, LengthCheck, PhraseCheck, SectionCheck
from ai_forge.data_pipeline.text.markdown import sections


def check(rule: str) -> object:
    found = directives_in(sections(rule)[0], all_items=False)
    return next((c for c in map(check_of, found) if c is not None), None)


def lines(limit: int, stated: int) -> LengthCheck:
    return LengthCheck(limit=limit, stated=stated, unit="lines", of="code")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("Files must not exceed 300 lines.", lines(300, 300)),
        ("Keep every file under 400 lines; split it otherwise.", lines(399, 400)),
        ("300-line limit for every file", lines(300, 300)),
        ("No file is longer than **1,000 lines**.", lines(1000, 1000)),
        ("- Functions: at most 40 lines.", lines(40, 40)),
        ("| What | Limit |\n|---|---|\n| Module | 300 lines |", lines(300, 300)),
        ("Lines have at most 100 characters.", LengthCheck(limit=100, stated=100, unit="characters", of="code")),
        ("Commit subjects: max 72 chars", LengthCheck(limit=72, stated=72, unit="characters", of="text")),
        ("A summary must not exceed 200 words.", LengthCheck(limit=200, stated=200, unit="words", of="text")),
        ("Run the identity audit as step 0.", FirstStepCheck(phrase="identity audit")),
        ("Step 0: Identity audit - say who you are.", FirstStepCheck(phrase="Identity audit")),
        ("Every session starts with an identity audit.", FirstStepCheck(phrase="identity audit")),
        ("Start each task by reading `PLAN.md`.", FirstStepCheck(phrase="reading PLAN.md")),
        ("The first step of every task is a backup: copy it.", FirstStepCheck(phrase="backup")),
        ("Before anything else, read the plan.", FirstStepCheck(phrase="read the plan")),
        ("0. **Identity audit**: who am I\n1. Go", FirstStepCheck(phrase="Identity audit")),
        ("Answers must end with a “Verification wall” section.", SectionCheck(title="Verification wall", place="end")),
        ("Each report ends with a verification wall: proof.", SectionCheck(title="verification wall", place="end")),
        ("Every answer must include a **Risks** section.", SectionCheck(title="Risks")),
        ("Every commit message must contain `Refs:`.", PhraseCheck(phrase="Refs")),
        ('Start every answer with "Understood."', PhraseCheck(phrase="Understood", place="start")),
        ("More than 80 lines of logs are normal.", None),
        ("Every module starts with a docstring.", None),
        ("Every module must contain `__all__`.", None),
        ('Never end an answer with "Hope that helps".', None),
        ("Never commit secrets.", None),
        ("Tests must run in 300 seconds.", None),
    ],
)
def test_a_rule_is_checkable_where_it_says_so_clearly(rule: str, expected: object) -> None:
    assert check(rule) == expected


WALL = "Done.\n\n## Verification wall\n\n- `make test`: 12 passed"


@pytest.mark.parametrize(
    ("checked", "answer", "passes"),
    [
        (lines(300, 300), "No: files end at 300 lines. I split it.", True),
        (lines(300, 300), "Sure, go ahead.", False),
        (lines(300, 300), "It is 3000 lines.", False),
        (lines(3, 3), "At most 3 lines:\n```\na\nb\nc\n```", True),
        (lines(3, 3), "At most 3 lines:\n```\na\nb\nc\nd\n```", False),
        (lines(3, 3), "At most 3 lines:\n```\na\nb\nc\nd", False),  # a fence that was never closed
        (LengthCheck(limit=10, stated=10, unit="characters", of="text"), "Fix typo\n\nLong body follows here.", True),
        (LengthCheck(limit=10, stated=10, unit="characters", of="text"), "Fix the typo in it", False),
        (LengthCheck(limit=10, stated=10, unit="characters", of="text"), "", False),
        (LengthCheck(limit=3, stated=3, unit="words", of="text"), "one two three", True),
        (LengthCheck(limit=3, stated=3, unit="words", of="text"), "one two three four", False),
        (FirstStepCheck(phrase="identity audit"), "1. Identity audit: I am the agent.\n2. Read.", True),
        (FirstStepCheck(phrase="identity audit"), "I begin with the identity audit, then read the code.", True),
        (FirstStepCheck(phrase="identity audit"), "## Step 0\nIdentity audit\n## Step 1\nGo", True),
        (FirstStepCheck(phrase="identity audit"), "1. Read the code.\n2. Identity audit.", False),
        (FirstStepCheck(phrase="identity audit"), "I read the code, then do the identity audit.", False),
        (SectionCheck(title="Verification wall", place="end"), WALL, True),
        (SectionCheck(title="Verification wall", place="end"), WALL + "\n\n## Next\n\nMore.", False),
        (SectionCheck(title="Verification wall"), WALL + "\n\n## Next\n\nMore.", True),
        (SectionCheck(title="Verification wall"), "Done.\n\n**Verification wall**: 12 tests passed.", True),
        (SectionCheck(title="Verification wall"), "Done.\n\n## Verification wall", False),
        (SectionCheck(title="Verification wall"), "There will be a verification wall.", False),
        (SectionCheck(title="Verification wall"), "```\n# Verification wall\nx\n```", False),
        (SectionCheck(title="Risks", place="start"), "Risks: none.\n\nDone.", True),
        (SectionCheck(title="Risks", place="start"), "Done.\n\nRisks: none.", False),
        (PhraseCheck(phrase="I have verified this"), "So: **I have\nverified** this.", True),
        (PhraseCheck(phrase="Understood", place="start"), "Understood. I go on.", True),
        (PhraseCheck(phrase="Understood", place="start"), "Well.\nUnderstood.", False),
        (PhraseCheck(phrase="Refs", place="end"), "Fix it\n\nRefs: 12", True),
    ],
)
def test_an_answer_passes_or_fails(checked: LengthCheck, answer: str, passes: bool) -> None:
    assert checked.passes(answer) is passes
