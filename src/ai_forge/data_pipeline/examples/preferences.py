"""Preference pairs: what the team put right over what it was before, and right answers over subtly wrong ones.

    mine_preferences   from git: in commits that fix, revert or answer a review, a unit's state after over the one before
    answer_pairs       from RAFT examples: the answer over the same one with a distractor's citation, or with a symbol
                       that only the distractors hold; each rejected answer fails the check that the chosen one passes
    Handbook.preferences (in `handbook`)   from corrections: the rule over the mistake

Units are paired by qualified name within a file (renamed or not), found by the same parser that mines blocks; only whole
units that parse are taken, the innermost that changed.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ai_forge.config.data import MinerSettings
from ai_forge.data_pipeline.examples.verification import verify_example
from ai_forge.data_pipeline.mining.filters import file_rejection, is_test_path
from ai_forge.data_pipeline.mining.parsing import ParsedFile, Unit, parse
from ai_forge.data_pipeline.schemas import RAFTExample, content_id
from ai_forge.data_pipeline.schemas.preference_pairs import (
    ChatMessage,
    PairOrigin,
    PreferenceKind,
    PreferencePair,
)
from ai_forge.data_pipeline.secrets.masking import scrub_text
from ai_forge.data_pipeline.source.history import Change, Commit, read_blobs, read_commits
from ai_forge.data_pipeline.text.words import approximate_tokens
from ai_forge.prompting.prompt import citations_in, messages_for

__all__ = ["Preferences", "answer_pairs", "commit_kind", "mine_preferences"]

# Units that one commit may change: one that touches more is no single correction
_MAX_UNITS = 8
_MAX_MESSAGE = 600
_REVERT = re.compile(r"^revert\b|^\s*this reverts commit [0-9a-f]{7,40}", re.IGNORECASE | re.MULTILINE)
_REVIEW = re.compile(
    r"^(?:fixup|squash|amend)! |\b(?:address(?:es|ed|ing)?|apply|applies|after|per|from)\b[^\n]{0,30}\b"
    r"(?:review|feedback|nits?)\b|\b(?:review|PR) (?:comments?|feedback|suggestions?|remarks?)\b",
    re.IGNORECASE,
)
_FIX = re.compile(
    r"^(?:bug|hot)?fix(?:\([^)\n]*\))?!?:|\b(?:fix(?:e[sd]|ing)?|bug(?:s|fix)?|regression|hotfix|crash(?:e[sd])?)\b",
    re.IGNORECASE,
)
_NO_FIX = re.compile(
    r"\bfix(?:e[sd])?\s+(?:the\s+|some\s+|a\s+)?(?:typos?|spelling|lint\w*|format\w*|style|indent\w*|white ?space|imports?|docs?|"
    r"documentation|docstrings?|comments?|changelog|readme|version|ci|mypy|ruff|flake8|warnings?)\b|"
    r"\bfix(?:e[sd])?\s+(?:\S+\s+){0,2}(?:tests?|specs?|builds?|compil\w+|merge|rebase|conflicts?|benchmarks?)"
    r"(?:\s+(?:errors?|failures?|issues?|problems?|warnings?))?\s*\.?$|"
    r"\b(?:tests?|specs?|builds?|compil\w+|lint\w*|docs?|typos?|ci|merge)\s+fix(?:es)?\b|"
    r"\b(?:builds?|compil\w+|lint\w*)\s+(?:errors?|warnings?|failures?)\b|"
    r"\b(?:errors?|warnings?)\s+(?:with|on|under|from)\s+(?:\S+\s+){0,3}(?:nightly|clang|gcc|msvc|compilers?)\b",
    re.IGNORECASE,
)
_TRAILER = re.compile(
    r"^[A-Z][\w-]+(?: [a-z]+)?(?:-by|-Id|-to)?: .*$|^\(cherry picked from .*$|^This reverts commit .*$", re.MULTILINE
)
_REVERTED = re.compile(r"^(?:Revert[: ]+)+[\"“]?(.*?)[\"”]?$", re.IGNORECASE)
_ADDRESS = re.compile(r"<?[\w.+-]{1,64}@[\w.-]{1,255}\w>?")
_LEADS: dict[PreferenceKind, str] = {
    "fix": "What was wrong and had to be fixed:",
    "revert": "This change was tried and taken back:",
    "review": "What a review asked for, or what it was about:",
}
_COMMENT_LINE = re.compile(r"^\s*(?:#|//|/?\*).*$", re.MULTILINE)


@dataclass(frozen=True)
class Preferences:
    """The pairs, and why there are not more, counted by reason."""

    pairs: tuple[PreferencePair, ...]
    rejected: Counter[str] = field(default_factory=Counter)

    def summary(self) -> dict[str, object]:
        """Counts, for a report."""
        return {
            "pairs": len(self.pairs),
            "by_kind": dict(Counter(pair.kind for pair in self.pairs).most_common()),
            "rejected": dict(self.rejected.most_common()),
        }


def commit_kind(message: str) -> PreferenceKind | None:
    """What a commit's message says that it puts right, or None.

    >>> commit_kind("Fix crash on empty input"), commit_kind("fixup! Add parser"), commit_kind('Revert "Use threads"')
    ('fix', 'review', 'revert')
    >>> commit_kind("Fix typo in docs"), commit_kind("Add a prefix"), commit_kind("Add parser") is None
    (None, None, True)
    """
    subject = message.strip().partition("\n")[0]
    if _REVERT.search(message):
        return "revert"
    if _REVIEW.search(subject):
        return "review"
    if _FIX.search(subject) and not _NO_FIX.search(subject):  # a typo's fix says nothing about code
        return "fix"
    return None


def mine_preferences(
    repo_path: Path,
    *,
    settings: MinerSettings | None = None,
    max_commits: int = 2000,
    scrub: Callable[[str], str] = scrub_text,
) -> Preferences:
    """Pairs of the last `max_commits` commits, newest first. `scrub` masks secrets; code that holds one is dropped.

    Raises InputError: no git history there.
    """
    settings = settings or MinerSettings()
    rejected: Counter[str] = Counter()
    kinds = [(commit, commit_kind(commit.message)) for commit in read_commits(repo_path, max_commits, rejected)]
    right = [(commit, kind) for commit, kind in kinds if kind is not None]
    rejected["commit_puts_nothing_right"] = len(kinds) - len(right)
    wanted = [blob for commit, _ in right for change in commit.changes for blob in (change.blob, change.blob_before)]
    blobs = read_blobs(repo_path, wanted, settings.max_file_bytes)
    pairs: dict[str, PreferencePair] = {}
    judged: set[tuple[str, str, str]] = set()
    for commit, kind in right:
        found: list[PreferencePair] = []
        for change in commit.changes:
            found += _pairs_of(commit, kind, change, blobs, settings, scrub, rejected)
        if len(found) > _MAX_UNITS:
            rejected["commit_too_wide"] += len(found)
            continue
        for pair in found:
            unit = pair.origin.unit or ""
            # Newest first: where history goes back and forth, the newest judgement holds.
            if (unit, pair.rejected, pair.chosen) in judged:
                rejected["judged_again_later"] += 1
            elif (unit, pair.chosen, pair.rejected) in judged:
                rejected["duplicate"] += 1
            else:
                judged.add((unit, pair.chosen, pair.rejected))
                pairs[pair.id] = pair
    return Preferences(tuple(pairs.values()), +rejected)


def _pairs_of(
    commit: Commit,
    kind: PreferenceKind,
    change: Change,
    blobs: dict[str, bytes],
    settings: MinerSettings,
    scrub: Callable[[str], str],
    rejected: Counter[str],
) -> Iterator[PreferencePair]:
    """The units that a commit changed in one file, as pairs."""
    after, before = blobs.get(change.blob), blobs.get(change.blob_before)
    if after is None or before is None:
        rejected["too_large"] += 1
    elif is_test_path(change.path):
        rejected["test_file"] += 1
    elif reason := file_rejection(change.path, after):
        rejected[reason] += 1
    else:
        new, old = parse(after, change.language), parse(before, change.language)
        if new is None or old is None:
            rejected[f"no_grammar_{change.language}"] += 1
            return
        units_before = _by_name(old)
        changed = [(u, units_before[name]) for name, u in _by_name(new).items() if name in units_before]
        changed = [(u, b) for u, b in changed if _essence(new, u) != _essence(old, b)]
        # A class changes whenever a method does: only the innermost says what was put right.
        outer = {id(parent) for unit, _ in changed for parent in _parents(unit)}
        for unit, unit_before in changed:
            if id(unit) in outer:
                continue
            chosen, worse = _source(new, unit), _source(old, unit_before)
            reason = _unit_rejection(unit, unit_before, chosen, worse, settings)
            if reason is None and (scrub(chosen) != chosen or scrub(worse) != worse):
                reason = "secret"
            if reason is not None:
                rejected[reason] += 1
                continue
            task = scrub(_as_task(commit.message))
            asked = f"Write `{unit.qualified_name}` of `{change.path}`.\n\n{_LEADS[kind]}\n{task}"
            yield PreferencePair(
                prompt=(ChatMessage(role="user", content=asked),),
                chosen=chosen,
                rejected=worse,
                kind=kind,
                origin=PairOrigin(
                    path=change.path,
                    unit=unit.qualified_name,
                    first_line=unit.first_line,
                    last_line=unit.last_line,
                    commit=commit.id,
                    parent=commit.parent,
                    path_before=change.path_before if change.path_before != change.path else None,
                ),
            )


def _by_name(parsed: ParsedFile) -> dict[str, Unit]:
    """Units by qualified name, without names that several share."""
    counts = Counter(unit.qualified_name for unit in parsed.units)
    return {unit.qualified_name: unit for unit in parsed.units if counts[unit.qualified_name] == 1}


def _parents(unit: Unit) -> Iterator[Unit]:
    while unit.parent is not None:
        unit = unit.parent
        yield unit


def _source(parsed: ParsedFile, unit: Unit) -> str:
    """A unit's whole lines."""
    return b"\n".join(parsed.text.split(b"\n")[unit.first_line - 1 : unit.last_line]).decode("utf-8", "replace")


def _essence(parsed: ParsedFile, unit: Unit) -> str:
    """Code without white space, documentation and lines of comment: what a reader would call the same code is the same text."""
    code = parsed.text[unit.code_start : unit.end]
    statements = [] if unit.body is None else [node for node in unit.body.named_children if node.type != "comment"]
    if unit.docstring and statements and (statements[0].text or b"").lstrip(b"rRuU").startswith((b'"', b"'")):
        code = parsed.text[unit.code_start : statements[0].start_byte] + parsed.text[statements[0].end_byte : unit.end]
    return "".join(_COMMENT_LINE.sub("", code.decode("utf-8", "replace")).split())


def _unit_rejection(unit: Unit, before: Unit, chosen: str, worse: str, settings: MinerSettings) -> str | None:
    if unit.has_error or before.has_error:
        return "syntax_error"
    if max(map(approximate_tokens, (chosen, worse))) > settings.max_tokens:
        return "too_long"
    if min(map(approximate_tokens, (chosen, worse))) < settings.min_tokens:
        return "too_short"
    return None


def _as_task(message: str) -> str:
    """A commit message as a task: no trailers, addresses or marks; at most 600 characters, cut at a word."""
    subject, _, body = _ADDRESS.sub("", message.strip()).partition("\n")
    subject = re.sub(r"^(?:(?:fixup|squash|amend)! )+", "", subject, flags=re.IGNORECASE)
    reverted = _REVERTED.match(subject)
    if reverted:
        subject = reverted[1]
    body = re.sub(r"\n{3,}", "\n\n", _TRAILER.sub("", body)).strip()
    text = "\n".join(filter(None, (subject.strip(), body)))
    if len(text) > _MAX_MESSAGE:
        text = text[:_MAX_MESSAGE].rpartition(" ")[0] + " …"
    return text


def answer_pairs(examples: Iterable[RAFTExample]) -> Preferences:
    """Up to two pairs an example: a wrong citation and an invented symbol, both of its own distractors."""
    pairs: dict[str, PreferencePair] = {}
    rejected: Counter[str] = Counter()
    for example in examples:
        if not example.oracle_documents:
            rejected["no_oracle"] += 1
            continue
        if verify_example(example):
            rejected["answer_not_verified"] += 1
            continue
        spoiled: tuple[tuple[PreferenceKind, RAFTExample | None], ...] = (
            ("wrong_citation", _with_wrong_citation(example)),
            ("invented_symbol", _with_invented_symbol(example)),
        )
        for kind, worse in spoiled:
            if worse is None:
                rejected[f"nothing_for_{kind}"] += 1
            elif not verify_example(worse):  # then it may be right as well, and to prefer the other would teach nothing
                rejected[f"{kind}_not_noticed"] += 1
            else:
                messages = messages_for(example.question, example.shown_documents)
                pair = PreferencePair(
                    prompt=tuple(ChatMessage.model_validate(message) for message in messages),
                    chosen=example.target,
                    rejected=worse.target,
                    kind=kind,
                    origin=PairOrigin(path=example.subject_path, example_id=example.id),
                )
                pairs[pair.id] = pair
    return Preferences(tuple(pairs.values()), rejected)


def _with_wrong_citation(example: RAFTExample) -> RAFTExample | None:
    """The example with one oracle's citation replaced by a distractor's, everywhere."""
    cited = citations_in(example.target)
    wrong = sorted({d.citation for d in example.distractor_documents}, key=lambda c: content_id(example.id, c))
    if not cited or not wrong:
        return None
    return _replaced(example, f"[{cited[0]}]", f"[{wrong[0]}]")


def _with_invented_symbol(example: RAFTExample) -> RAFTExample | None:
    """The example with one stated fact replaced by a distractor's of the same kind."""
    for fact in example.facts:
        for wrong in sorted(example.wrong_facts, key=lambda f: content_id(example.id, f.value)):
            is_new = f"`{wrong.value}`" not in example.target and "`" not in wrong.value and "\n" not in wrong.value
            # A place is no symbol: that mistake is the wrong citation's.
            if wrong.kind == fact.kind and fact.kind != "location" and is_new:
                return _replaced(example, f"`{fact.value}`", f"`{wrong.value}`")
    return None


def _replaced(example: RAFTExample, old: str, new: str) -> RAFTExample:
    parts = {"reasoning": example.reasoning.replace(old, new), "final_answer": example.final_answer.replace(old, new)}
    return example.model_copy(update=parts)
