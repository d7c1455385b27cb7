"""One file of a handbook after the other to pairs, preferences and probes; nothing is told or asked twice.

What each kind of pair is made of stands in `handbook`; how its question is worded in `handbook_wording`.
"""

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ai_forge.data_pipeline.handbook.agent_folder import HandbookFile
from ai_forge.data_pipeline.handbook.corrections import Correction, corrections_in
from ai_forge.data_pipeline.handbook.directives import Directive, check_of, directives_in
from ai_forge.data_pipeline.handbook.scenarios import probe_prompts, situations
from ai_forge.data_pipeline.handbook.wording import QUESTIONS, is_date, starts_with_date
from ai_forge.data_pipeline.schemas.code_blocks import content_id
from ai_forge.data_pipeline.schemas.instructions import HandbookPair, PairKind
from ai_forge.data_pipeline.schemas.preference_pairs import ChatMessage, PairOrigin, PreferencePair
from ai_forge.data_pipeline.schemas.probes import Check, ComplianceProbe, FirstStepCheck, content_words
from ai_forge.data_pipeline.text.markdown import Block, Section, plain_text
from ai_forge.data_pipeline.text.words import approximate_tokens

__all__ = ["PairMaker"]

# A step after which there may be no next one
_MAY_END = re.compile(
    r"\b(?:if|when|unless|in case|otherwise|else)\b.*\b(?:stop|abort|cancel|end|quit|exit|halt|give up|bail|go back|return to|"
    r"start over|skip|do not (?:continue|go on)|don't (?:continue|go on))\b",
    re.IGNORECASE | re.DOTALL,
)
# Longer section texts are cut between paragraphs, approximate tokens
_MAX_TOKENS = 700


@dataclass
class PairMaker:
    """Collects pairs file by file; the same question or text is taken once."""

    pairs: list[HandbookPair] = field(default_factory=list)
    preferences: list[PreferencePair] = field(default_factory=list)
    statements: dict[str, list[set[str]]] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    _checked: list[tuple[HandbookFile, Directive, Check, str]] = field(default_factory=list)
    _questions: set[tuple[str, str]] = field(default_factory=set)
    _texts: set[str] = field(default_factory=set)
    _corrected: set[tuple[str, str]] = field(default_factory=set)
    directives: list[tuple[HandbookFile, Directive]] = field(default_factory=list)
    """All rules that were read, for a look at which of them contradict each other."""

    def add(self, file: HandbookFile) -> None:
        """The pairs of one file."""
        description = file.meta.get("description")
        if file.role == "skill" and description:
            rule = content_id(file.path, "description")
            self.statements.setdefault(rule, [])
            self._tell(file, "skill", _span(1, 1), rule, QUESTIONS["skill_use"], file.title, description)
        sections = [section for section in file.sections if section.text]
        opening = None
        if file.role not in ("correction", "log") and len(sections) > 1:
            opening = self._overview(file, sections)
        kind: PairKind = "document" if len(sections) == 1 and len(file.sections) == 1 else "section"
        for section in sections:
            rule = _rule_id(file, section)
            self.statements.setdefault(rule, [])
            unread = self._corrections(file, section, rule)
            if unread is None and section is not opening:
                self._section(file, section, kind, rule)
            elif unread:
                text = "\n".join(_as_written(block) for block in unread)
                lines = _span(section.first_line, section.last_line)
                self._tell(file, kind, lines, rule, QUESTIONS[file.role], _topic(file, section), text)
            self._scenarios(file, section, rule)
            if file.role == "workflow":
                self._steps(file, section, rule)

    def probes(self) -> Iterator[ComplianceProbe]:
        """Probes of all checkable directives, one rule's check once; none asks what a pair asks."""
        seen: set[str] = set()
        for file, directive, check, rule in self._checked:
            key = check.model_dump_json().lower()
            if key in seen:
                self.rejected["same_check"] += 1
                continue
            seen.add(key)
            prompts = probe_prompts(directive, check)
            if (
                directive.ordinal == 1 and file.role == "workflow"
            ):  # a workflow's first step: it is asked about that workflow, not about any task
                prompts = [f"This is due now: {_topic(file, directive.section)}. Which step comes first?"]
            for prompt in prompts:
                if (_normal(prompt), "") not in self._questions:
                    yield ComplianceProbe(
                        prompt=prompt,
                        check=check,
                        rule=directive.text,
                        rule_id=rule,
                        path=file.path,
                        first_line=directive.first_line,
                    )

    # -- one kind of pair each --------------------------------------------------------------------------------------

    def _overview(self, file: HandbookFile, sections: list[Section]) -> Section | None:
        """Tell what the document is about: its opening words and its headings. Gives the opening, if that told its text."""
        is_prose = all(block.kind == "paragraph" for block in sections[0].blocks)
        is_over_the_rest = sections[0].level <= 1 and all(section.level > sections[0].level for section in sections[1:])
        is_opening = is_prose and is_over_the_rest and approximate_tokens(sections[0].text) <= _MAX_TOKENS
        if not is_opening and (is_over_the_rest or sections[0].heading == file.title):
            return None  # headings alone would leave out what stands above them
        rest, rule = sections, content_id(file.path)
        if is_opening:
            rest, rule = sections[1:], _rule_id(file, sections[0])
        titles = dict.fromkeys(section.heading for section in rest if section.heading not in ("", file.title))
        if not titles:
            return None
        text = "\n".join(f"- {title}" for title in titles)
        if is_opening:
            text = f"{sections[0].text}\n\n{text}"
        self.statements.setdefault(rule, [])
        where = _span(sections[0].first_line, sections[-1].last_line)
        told = self._tell(file, "document", where, rule, QUESTIONS["overview"], file.title, text)
        return sections[0] if told and is_opening else None

    def _section(self, file: HandbookFile, section: Section, kind: PairKind, rule: str) -> None:
        parts = list(_parts(section))
        for number, (first, last, text) in enumerate(parts, start=1):
            topic = _topic(file, section)
            if len(parts) > 1:
                topic += f", part {number} of {len(parts)}"
            role = "log_day" if file.role == "log" and is_date(section.heading) else file.role
            self._tell(file, kind, _span(first, last), rule, QUESTIONS[role], topic, text)

    def _corrections(self, file: HandbookFile, section: Section, rule: str) -> list[Block] | None:
        """Pairs of the corrections in a section. Gives the blocks that hold none, or None where the whole text stays."""
        found, unread = corrections_in(section, labelled_only=file.role != "correction")
        for correction in found:
            key = (_normal(correction.mistake), _normal(correction.rule))
            if key in self._corrected:
                self.rejected["same_correction"] += 1
                continue
            self._corrected.add(key)
            # In the file of corrections each is a rule of its own; elsewhere it lies on the side of what it is said of.
            own = content_id(rule, correction.rule) if file.role == "correction" else rule
            self.statements.setdefault(own, []).append(content_words(correction.rule))
            output = "\n".join([correction.rule, *correction.more])
            question = QUESTIONS["correction_review"]
            where = _span(correction.first_line, correction.last_line)
            if self._tell(file, "correction", where, own, question, "", output, given=correction.mistake):
                # A heading asks for a correction only where it is above this one alone.
                is_its_own = len(found) == 1 and section.level > 1
                self._prefer(file, section.heading if is_its_own else "", correction, own)
            for directive in _directives_of(correction):
                self._check(file, directive, own)
        if not found or file.role != "correction":
            return None
        return unread

    def _prefer(self, file: HandbookFile, heading: str, correction: Correction, rule: str) -> None:
        asked = next((text for d in _directives_of(correction) for text in situations(d)), None)
        if asked is None and heading and not starts_with_date(heading):
            asked = f"How do we do this here: {heading}?"
        if asked is None:
            # In the order of a hash, so that the right one is not always the first.
            options = sorted((correction.rule, correction.mistake), key=content_id)
            asked = f"Which of the two is our way?\n\nA. {options[0]}\n\nB. {options[1]}"
        self.preferences.append(
            PreferencePair(
                prompt=(ChatMessage(role="user", content=asked),),
                chosen=correction.rule,
                rejected=correction.mistake,
                kind="correction",
                origin=PairOrigin(
                    path=file.path,
                    first_line=correction.first_line,
                    last_line=correction.last_line,
                    rule_id=rule,
                ),
            )
        )

    def _scenarios(self, file: HandbookFile, section: Section, rule: str) -> None:
        if file.role in ("log", "correction"):
            return
        for directive in directives_in(section, all_items=file.role == "rule"):
            self.statements[rule].append(content_words(directive.plain))
            self._check(file, directive, rule)
            for asked in situations(directive):
                if _names(asked, file, section):
                    self.rejected["names_the_rule"] += 1
                else:
                    where = _span(directive.first_line, directive.last_line)
                    self._tell(file, "scenario", where, rule, (asked,), "", directive.text)

    def _steps(self, file: HandbookFile, section: Section, rule: str) -> None:
        steps = [block for block in section.blocks if block.kind == "item" and block.ordinal is not None]
        for step, following in pairwise(steps):
            if following.ordinal == (step.ordinal or 0) + 1 and not _MAY_END.search(plain_text(step.text)):
                asked = (f"This step is done: {plain_text(step.text)}\nWhat is next?",)
                text, last_line = _whole_step(section, following)
                self._tell(file, "step", _span(following.first_line, last_line), rule, asked, "", text)
        if steps and steps[0].ordinal == 1:
            plain = plain_text(steps[0].text)
            words = re.split(r"[.:;,(—–]", plain, maxsplit=1)[0].strip()
            if 1 <= len(content_words(words)) <= 6:
                first = Directive(steps[0].text, plain, section, steps[0].first_line, steps[0].last_line, 1)
                self._checked.append((file, first, FirstStepCheck(phrase=words.replace("`", "")), rule))

    def _check(self, file: HandbookFile, directive: Directive, rule: str) -> None:
        self.directives.append((file, directive))
        check = check_of(directive)
        if check is not None:
            self._checked.append((file, directive, check, rule))

    def _tell(
        self,
        file: HandbookFile,
        kind: PairKind,
        lines: tuple[int, int],
        rule: str,
        questions: Sequence[str],
        topic: str,
        output: str,
        *,
        given: str = "",
    ) -> bool:
        """Add a pair unless its text (or, for a scenario, its question) is there already."""
        output = output.strip()
        if kind in ("section", "document", "skill") and self._is_told(output):
            return False
        start = int(content_id(file.path, topic, output), 16) % len(questions)
        wordings = [*questions[start:], *questions[:start]]
        if topic:  # without one the question may hold braces of its own
            wordings = [wording.format(topic=topic) for wording in wordings]
        if kind in ("section", "document", "skill"):  # two of one heading are told apart by their place
            wordings.append(f"{wordings[0]} (`{file.path}`, line {lines[0]})")
        free = next((w for w in wordings if (_normal(w), _normal(given)) not in self._questions), None)
        if free is None:
            self.rejected["same_question"] += 1
            return False
        self._questions.add((_normal(free), _normal(given)))
        self.pairs.append(
            HandbookPair(
                instruction=free,
                input=given,
                output=output,
                kind=kind,
                path=file.path,
                first_line=lines[0],
                last_line=lines[1],
                rule_id=rule,
            )
        )
        return True

    def _is_told(self, output: str) -> bool:
        key = _normal(output)
        if key in self._texts or not key:
            self.rejected["same_text"] += 1
            return True
        self._texts.add(key)
        return False


def _rule_id(file: HandbookFile, section: Section) -> str:
    return content_id(file.path, *section.headings, str(section.first_line))


def _directives_of(correction: Correction) -> list[Directive]:
    plain = plain_text(correction.rule)
    where = (correction.first_line, correction.last_line)
    return [Directive(correction.rule, plain, Section((), 0, correction.rule, *where), *where)]


def _topic(file: HandbookFile, section: Section) -> str:
    titles = [title for title in section.headings if title != file.title]
    return f"{' › '.join(titles)} ({file.title})" if titles else file.title


def _names(asked: str, file: HandbookFile, section: Section) -> bool:
    told = _normal(asked)
    return any(_normal(name) in told for name in {file.title, *section.headings} if _normal(name))


def _normal(text: str) -> str:
    return " ".join(re.findall(r"\w+|[<>=!+*/%-]+", text.lower()))


def _span(first: int, last: int) -> tuple[int, int]:
    return first, max(first, last)


def _whole_step(section: Section, step: Block) -> tuple[str, int]:
    """(a step with the code, lists and paragraphs that stand indented below it, its last line)."""
    lines = section.text.split("\n")[step.first_line - section.first_line :]
    indent = len(lines[0]) - len(lines[0].lstrip())
    n_lines = 1
    for number, line in enumerate(lines[1:], start=2):
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        if line.strip():  # blank lines at the end are not the step's
            n_lines = number
    opening = re.sub(r"^\s*\d+[.)]\s+", "", lines[0])  # its number would tell which step is next
    below = textwrap.dedent("\n".join(lines[1:n_lines]))
    return "\n".join(filter(None, [opening, below])), step.first_line + n_lines - 1


def _as_written(block: Block) -> str:
    if block.kind == "code":
        return f"```\n{block.text}\n```"
    if block.kind != "item":
        return block.text
    return f"- {block.text}" if block.ordinal is None else f"{block.ordinal}. {block.text}"


def _parts(section: Section) -> Iterator[tuple[int, int, str]]:
    """(first line, last line, text) of a section, cut between outermost blocks where it is too long."""
    lines = section.text.split("\n")
    cuts = sorted({section.first_line, *section.starts, section.last_line + 1})
    first = section.first_line
    for cut, following in pairwise(cuts):
        text = "\n".join(lines[first - section.first_line : following - section.first_line])
        if cut > first and approximate_tokens(text) > _MAX_TOKENS:
            yield first, cut - 1, "\n".join(lines[first - section.first_line : cut - section.first_line]).rstrip()
            first = cut
    yield first, section.last_line, "\n".join(lines[first - section.first_line :]).rstrip()
