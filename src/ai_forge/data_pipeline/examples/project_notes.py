"""What people wrote about the code outside of it: commit messages (found by blame) and sections of the documentation.

A commit speaks for a block when most of the block's lines are its, and when it wrote few other blocks or has a sentence
that names this one. A section speaks for a block that it names in backticks, unambiguously. Secrets are masked, trailers
and lines with addresses left out.

Each commit and each section is dealt to one side of a split (`of_side`), so no question about it is asked twice; one that
names held-out code is never shown in training.
"""

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ai_forge.data_pipeline.examples.block_tree import tree_of_block
from ai_forge.data_pipeline.examples.excerpts import documentation_rows
from ai_forge.data_pipeline.examples.references import COMMENT_LINE
from ai_forge.data_pipeline.mining.filters import is_test_path
from ai_forge.data_pipeline.schemas import CodeBlock, Document, content_id
from ai_forge.data_pipeline.secrets.masking import scrub_text
from ai_forge.data_pipeline.source.file_dates import author_time
from ai_forge.data_pipeline.source.repository import Repository, blob_id, blobs_at_head, git_output, read_documents
from ai_forge.data_pipeline.text.markdown import decode, sections, split_front_matter
from ai_forge.data_pipeline.text.words import approximate_tokens, first_sentence, identifiers, one_line

__all__ = ["ProjectNotes", "Quote", "read_notes", "state_of_notes"]

_MARKDOWN = (".md", ".markdown")
_NEWEST = sys.maxsize
_MAX_BLAMED_FILES = 500
# The message of a commit that wrote everything explains nothing
_MAX_BLOCKS_OF_COMMIT = 12
_MAX_MESSAGE_TOKENS = 220
_MAX_SECTION_TOKENS = 260
_MAX_SECTION_FILES = 300
_MOST_HELD_OUT = ("test", "valid", "train")
_SENTENCE_WORDS = (4, 40)
_GENERIC = re.compile(
    r"^(?:\w+(?:\([^)]*\))?!?: )?(?:includes? (?:the )?lat|sync|vendor|re-?format|lint|tests?|wip|fix(?:up|es)?|update[sd]?|"
    r"initial|first|merge|bump|release|version|v?\d|squash|revert|typo|"
    r"renam\w+|mov(?:e|es|ed|ing)|normali[sz]e\w*|clean(?:ed|ing)?[ -]?up|cosmetics?|refactor\w*|style|idioms?|comments?|docs?|"
    r"[kj]a?v?a?docs?|(?:add|fix|improve|update|write)\w* (?:\w+ ){0,2}(?:docs?|kdocs?|javadocs?|documentation|docstrings?|"
    r"comments?))\b",
    re.I,
)
# What a commit may bring besides code, or do to all code alike: neither says why one function is there.
_ASIDE = re.compile(
    r"\b(?:docs?|javadocs?|documentation|docstrings?|rst|readme|changelog|ci|gh actions?|github actions?|tox|travis|"
    r"appveyor|sonar\w*|phpstan|psalm|phan|mypy|eslint|lint\w*|code style|clean[ -]?ups?|typos?|(?:ci|broken|fix\w*|the) builds?|"
    r"(?:return|property|properties|scalar|param\w*) types?|type ?hints?|part \d+ of|export from|"
    r"(?:migrat\w+|convert\w*|port\w*|mov\w+) (?:\S+ )*to (?:kotlin|typescript|java ?\d*|python ?\d*|es\d+|c\+\+\d*)|"
    r"(?:add|improve|more|write)\w* (?:\w+ ){0,2}tests?)\b|^(?:test|exercise|document)",
    re.I,
)
_REASON = re.compile(r"\b(?:because|so that|otherwise|instead|in order to|to avoid|since|without|so)\b|: ", re.I)
_TRAILER = re.compile(r"^[A-Z][\w-]*(?:-[Bb]y|-[Ii]d)?: \S.*$|\S+@\S+\.\w+")
_TYPES = ("class", "interface", "type")
_NO_CONSTRUCTORS = ("go", "rust", "c")
_VERSION = re.compile(r"[\[(]?(?:version |release )?v?\d+\.\d+", re.I)
_CODE_SPAN = re.compile(r"`([^`\n]+)`")
_NOT_ABOUT_CODE = re.compile(
    r"(?:^|/)\.[^/]+/|(?:^|/)(?:CHANGELOG|AGENTS|CLAUDE|GEMINI|CHANGES|HISTORY|NEWS|LICEN[CS]E|CODE_OF_CONDUCT|SECURITY|UPGRAD\w+|MIGRAT\w+|"
    r"RELEASE\w*|ROADMAP|AUTHORS)[^/]*$",
    re.I,
)
# A sentence that leans on the one before it, which is not quoted.
_LEANING = re.compile(
    r"(?:This|That|These|Those|It|Its|They|Such|Here|Then|Otherwise|Instead|However|But|And|Or|So|Also|Both|"
    r"(?:In|For|With|By|To do) (?:this|that|these|such|so)|(?:If|When) (?:this|that|so|it)|See)\b"
)


class Quote(BaseModel):
    """A sentence about a block, word for word, and the document that holds it.

    `time` is that of the commit, or of the newest line of the section, in s since 1970; 0 where there is no history.
    """

    model_config = ConfigDict(frozen=True)

    block_id: str
    kind: Literal["commit", "section"]
    document: Document
    quotation: str
    time: int = 0


class ProjectNotes(BaseModel):
    """Everything that was said about the blocks of a repository."""

    model_config = ConfigDict(frozen=True)

    said: tuple[Quote, ...] = ()  # the name that stands in the notes of runs made before

    @cached_property
    def fingerprint(self) -> str:
        """Content hash over everything."""
        parts = [(one.block_id, one.document.block_id, one.quotation, str(one.time)) for one in self.said]
        return content_id(*chain.from_iterable(parts))

    @cached_property
    def commits(self) -> dict[str, Quote]:
        """By block id: the commit that wrote the block."""
        return {one.block_id: one for one in self.said if one.kind == "commit"}

    @cached_property
    def sections(self) -> dict[str, list[Quote]]:
        """By block id: the sections that name the block."""
        found: dict[str, list[Quote]] = defaultdict(list)
        for one in self.said:
            if one.kind == "section":
                found[one.block_id].append(one)
        return found

    def of_side(
        self,
        side: str,
        documents: Sequence[CodeBlock],
        side_of_file: Mapping[str, str],
        before: float | None = None,
    ) -> "ProjectNotes":
        """What may be asked about and shown on one side of a split. The sides have no commit and no section in common.

        A section goes to the most held-out side of the blocks that it names; a commit to the side of one of its blocks,
        drawn by its id. What falls to training but names a held-out block goes nowhere. Where the split is by date, what
        is not older than `before` is not shown: it knows of what came later (`Split.ends`).
        """
        side_of_block = {block.id: side_of_file[block.path] for block in documents}
        sides_of_name: dict[str, set[str]] = defaultdict(set)
        for block in documents:
            sides_of_name[block.name].add(side_of_file[block.path])
        hidden = {name for name, sides in sides_of_name.items() if "train" not in sides and _is_telling(name)}
        sides: dict[str, list[str]] = defaultdict(list)
        for one in self.said:
            sides[one.document.citation].append(side_of_block[one.block_id])
        dealt: dict[str, str] = {}
        for one in self.said:
            among, text = sorted(sides[one.document.citation]), one.document.text
            if one.kind == "section":
                chosen = min(among, key=_MOST_HELD_OUT.index)
            else:  # drawn: by the most held-out of its blocks, a commit that wrote half of the repository would be test
                chosen = among[int(content_id(one.document.citation), 16) % len(among)]
                text = text.rpartition("\n\n")[0]  # without the sentence of ours about the lines it wrote
            if chosen == "train" and not hidden.isdisjoint(identifiers(text)):
                chosen = ""
            dealt[one.document.citation] = chosen
        kept = [one for one in self.said if dealt[one.document.citation] == side == side_of_block[one.block_id]]
        return ProjectNotes(said=tuple(one for one in kept if before is None or one.time < before))


def read_notes(repository: Repository, blocks: Sequence[CodeBlock]) -> ProjectNotes:
    """What the history and the Markdown files of a repository say about `blocks`."""
    sections = _dated(repository, _sections(repository, blocks))
    return ProjectNotes(said=(*_commits(repository, blocks), *sections))


def state_of_notes(repository: Repository) -> dict[str, object]:
    """What `read_notes` reads besides the blocks: the same state and the same blocks give the same words."""
    # A shallow clone has the same commit as a full one, and blames its oldest commit for all that is older.
    is_shallow = repository.is_git and git_output(repository.root, "rev-parse", "--is-shallow-repository")
    documents = read_documents(repository.root, _MARKDOWN, _MAX_SECTION_FILES)
    return {
        "commit": repository.commit,
        "is_shallow": is_shallow == b"true\n",
        "documents": [(path, blob_id(content)) for path, content in documents],
    }


def _commits(repository: Repository, blocks: Sequence[CodeBlock]) -> list[Quote]:
    """The commit of each block whose message is about it."""
    if not repository.is_git or repository.commit is None:
        return []
    by_file: dict[str, list[CodeBlock]] = defaultdict(list)
    for block in blocks:
        if not block.metadata.part and block.block_type != "module":
            by_file[block.path].append(block)
    committed = blobs_at_head(repository.root)
    writers: dict[str, str] = {}
    share: dict[str, str] = {}
    # Where there are too many files, drawn by a hash: the first of the alphabet would all be of a few folders.
    paths = sorted(by_file, key=lambda path: content_id(path))[:_MAX_BLAMED_FILES]
    # Blame counts the lines of HEAD: those of a file that was changed since are others.
    for path in (p for p in paths if committed.get(p) == by_file[p][0].metadata.blob_id):
        lines = _blame(repository.root, path)
        for block in by_file[path]:
            own = lines[block.metadata.first_line - 1 : block.metadata.last_line]
            own = [own[row] for row in _rows_of_code(block) if row < len(own)]
            commit, n = next(iter(Counter(own).most_common(1)), ("", 0))
            if 2 * n > len(own):
                writers[block.id] = commit
                name = block.metadata.qualified_name
                share[block.id] = f"It wrote {n} of the {len(own)} lines of code of `{name}` in `{path}`."
    messages = _messages(repository.root, set(writers.values()))
    wrote = Counter(writers.values())
    said: list[Quote] = []
    for block in blocks:
        commit = writers.get(block.id, "")
        time, message = messages.get(commit, (0, ""))
        quotation = _reason(message, block, wrote[commit])
        if quotation is not None:
            document = _commit_document(commit, f"{message}\n\n{share[block.id]}")
            said.append(Quote(block_id=block.id, kind="commit", document=document, quotation=quotation, time=time))
    return said


def _rows_of_code(block: CodeBlock) -> list[int]:
    """Rows of a block, from 0, that are neither documentation nor comment: who documents a function did not write it."""
    lines = block.source_code.split("\n")[block.metadata.head_lines :]
    tree = tree_of_block(block)
    documented: range = range(0)
    if tree is not None and (rows := documentation_rows(tree)):
        offset = tree.n_before + block.metadata.head_lines
        documented = range(rows[0] - offset, rows[1] - offset + 1)
    return [n for n, line in enumerate(lines) if n not in documented and line.strip() and not COMMENT_LINE.match(line)]


def _blame(root: Path, path: str) -> list[str]:
    """The commit of each line of a file at HEAD."""
    # The repository is not trusted: no text conversion of its own is run, no file of its own says which commits to skip.
    safe = ("--no-textconv", "--ignore-revs-file=")
    output = git_output(root, "blame", "--porcelain", "-w", *safe, "HEAD", "--", path) or b""
    found: dict[int, str] = {}
    for line in output.split(b"\n"):
        match = re.match(rb"([0-9a-f]{40,64}) \d+ (\d+)(?: \d+)?$", line)
        if match:
            found[int(match[2])] = match[1].decode("ascii")
    return [found[n] for n in sorted(found)]


def _dated(repository: Repository, said: Sequence[Quote]) -> list[Quote]:
    """The sections with the time of their newest line; what was not committed as it is now counts as newest."""
    if not repository.is_git or repository.commit is None:
        return list(said)
    named = {one.document.path for one in said}
    committed = blobs_at_head(repository.root)
    writers: dict[str, list[str]] = {}
    for path, content in read_documents(repository.root, _MARKDOWN, _MAX_SECTION_FILES):
        if path in named and committed.get(path) == blob_id(content, committed.get(path)):
            writers[path] = _blame(repository.root, path)
    times = _times(repository.root, {commit for lines in writers.values() for commit in lines})
    dated: list[Quote] = []
    for one in said:
        document = one.document
        first, last = document.first_line or 1, document.last_line or 0
        commits = writers.get(document.path or "", [])[first - 1 : last]
        newest = max((times.get(commit, _NEWEST) for commit in commits), default=_NEWEST)
        dated.append(one.model_copy(update={"time": newest}))
    return dated


def _times(root: Path, commits: set[str]) -> dict[str, int]:
    """Author's time of each commit, in s since 1970."""
    if not commits:
        return {}
    ids = "".join(f"{commit}\n" for commit in sorted(commits)).encode("ascii")
    form = ("--no-walk=unsorted", "--no-show-signature", "--no-notes", "--no-color", "--format=tformat:%H %at")
    output = git_output(root, "log", *form, "--stdin", stdin=ids) or b""
    pairs = (line.split(" ") for line in output.decode("ascii", "replace").splitlines())
    return {pair[0]: author_time(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _messages(root: Path, commits: set[str]) -> dict[str, tuple[int, str]]:
    """(author's time in s, message without secrets, trailers and addresses) of each commit that has a time."""
    if not commits:
        return {}
    ids = "".join(f"{commit}\n" for commit in sorted(commits)).encode("ascii")
    form = ("--no-walk=unsorted", "--encoding=UTF-8", "--no-show-signature", "--no-notes", "--no-color")
    output = git_output(root, "log", "-z", *form, "--format=tformat:%H %at%n%B", "--stdin", stdin=ids) or b""
    found: dict[str, tuple[int, str]] = {}
    for entry in filter(None, output.split(b"\0")):
        head, _, message = entry.decode("utf-8", "replace").partition("\n")
        commit, _, time = head.partition(" ")
        lines = [line.rstrip() for line in scrub_text(message).split("\n") if not _TRAILER.search(line)]
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
        if time and text and "```" not in text and approximate_tokens(text) <= _MAX_MESSAGE_TOKENS:
            found[commit] = author_time(time), text
    return found


def _reason(message: str, block: CodeBlock, n_blocks: int) -> str | None:
    """The sentence of a message that speaks of the block: the one that names it, that gives a reason, or the subject."""
    subject, _, body = message.partition("\n")
    if body[:1].islower():  # half a sentence
        return None
    if not body.startswith("\n"):  # more subjects: each line is about something else
        body = ""
    said = [s for s in (subject.strip(), *_sentences(body)) if _quotable(s) and not _ASIDE.search(s)]
    naming = [s for s in said if _is_telling(block.name) and block.name in identifiers(s)]
    # A commit that wrote many blocks explains one only by a reason that names its file; a small one by what it gives.
    if n_blocks > _MAX_BLOCKS_OF_COMMIT:
        stem = PurePosixPath(block.path).stem
        naming += [s for s in said[1:] if stem in identifiers(s) and _REASON.search(s)]
    elif not naming and not _GENERIC.match(subject):
        # Of the body only its first sentence: those below may be about what else the commit brought.
        opening = next(iter(_sentences(body)), "")
        around = [s for s in said if s in (opening, subject.strip())]
        naming = [*(s for s in around if s == opening and _REASON.search(s)), *around]
    return naming[0] if naming else None


def _commit_document(commit: str, text: str) -> Document:
    short = commit[:12]
    return Document(
        block_id=content_id("commit", commit, text),
        name=f"commit {short}",
        citation=f"commit:{short}",
        language="text",
        text=text,
        commit=commit,
    )


def _sections(repository: Repository, blocks: Sequence[CodeBlock]) -> list[Quote]:
    """Sentences of the Markdown files that name a block in backticks, with their sections."""
    named = _by_reference(blocks)
    said: dict[tuple[str, str], Quote] = {}
    for path, content in read_documents(repository.root, _MARKDOWN, _MAX_SECTION_FILES):
        if _NOT_ABOUT_CODE.search(path):
            continue
        try:
            text = scrub_text(decode(content)[0])
        except ValueError:
            continue
        page = _Page(path, text.split("\n"), repository.commit, blob_id(content))
        _, body, offset = split_front_matter(text)
        for section in sections(body, offset):
            if _VERSION.match(section.heading):  # what a release brought
                continue
            for part in section.blocks:
                if part.kind not in ("paragraph", "item"):
                    continue
                said_here = {*identifiers(section.heading), *identifiers(part.text)}
                for sentence in filter(_stands_alone, _sentences(part.text)):
                    for block in _named_in(sentence, named, said_here):
                        document = page.document(section.heading, section.first_line, section.last_line)
                        if document is None:  # the section is long: the paragraph alone
                            document = page.document(section.heading, part.first_line, part.last_line)
                        if document is not None:
                            one = Quote(block_id=block.id, kind="section", document=document, quotation=sentence)
                            said.setdefault((block.id, document.citation), one)
    return list(said.values())


@dataclass(frozen=True)
class _Page:
    """A Markdown file and where it comes from."""

    path: str
    lines: list[str]
    commit: str | None
    blob: str

    def document(self, heading: str, first: int, last: int) -> Document | None:
        """Some of its lines as a document; None where they are long or hold a fence."""
        text = "\n".join(self.lines[first - 1 : last])
        if "```" in text or approximate_tokens(text) > _MAX_SECTION_TOKENS:
            return None
        return Document(
            block_id=content_id(self.path, str(first), "section", text),
            name=heading.replace("`", "") or PurePosixPath(self.path).stem,
            citation=f"{self.path}:{first}-{last}",
            language="markdown",
            text=text,
            path=self.path,
            first_line=first,
            last_line=last,
            commit=self.commit,
            blob=self.blob,
        )


def _by_reference(blocks: Sequence[CodeBlock]) -> dict[str, CodeBlock]:
    """What a section may call a block by: its name or qualified name, where no other block bears it."""
    found: dict[str, list[CodeBlock]] = defaultdict(list)
    for block in blocks:
        if not block.metadata.part and not is_test_path(block.path):
            names = {block.name, block.metadata.qualified_name}
            if block.block_type == "module":
                file = PurePosixPath(block.path)
                names = {file.name, f"{file.parent.name}/{file.name}"}
            for name in names:
                found[name].append(block)
    may_be_called = {name for name in found if _is_telling(name) or name[:1].isupper()}
    return {name: same[0] for name, same in found.items() if len(same) == 1 and name in may_be_called}


def _named_in(sentence: str, named: Mapping[str, CodeBlock], said_here: Collection[str]) -> list[CodeBlock]:
    """The blocks that a sentence names; a method only where its class is named beside it."""
    found: dict[str, CodeBlock] = {}
    for span in _CODE_SPAN.findall(sentence):
        name = span.partition("(")[0].strip()
        block = named.get(name)
        if block is None and "." in name and "/" not in name:  # `module.function`; in a path the dot is the ending's
            block = named.get(name.rpartition(".")[2])
        is_called = "(" in span and block is not None and block.language in _NO_CONSTRUCTORS
        if block is None or (is_called and block.block_type in _TYPES):  # `Context()` is a function of that name
            continue
        *_, owner, _ = ("", *block.metadata.qualified_name.split("."))
        if block.name == owner:  # a constructor: what bears its name is the class
            continue
        if block.block_type != "method" or owner in said_here:  # `getPath` is a method of other classes, too
            found.setdefault(block.id, block)
    return list(found.values())


def _sentences(text: str) -> list[str]:
    """The sentences of each paragraph or item."""
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n|\n\s*[-*+] ", f"\n{text}"):
        left = one_line(paragraph).removeprefix("- ")
        while left:
            sentence = first_sentence(left)
            found.append(sentence)
            left = left[len(sentence) :].strip()
    return found


def _quotable(sentence: str) -> bool:
    low, high = _SENTENCE_WORDS
    fits = low <= len(sentence.split()) <= high and sentence[:1].isalnum() | (sentence[:1] == "`")
    balanced = sentence.count("`") % 2 == 0 and sentence.count("(") == sentence.count(")")
    return (
        fits
        and balanced
        and sentence[-1] != ","
        and not any(mark in sentence for mark in ('"', "](", "][", "|", "<!--", "**"))
    )


def _stands_alone(sentence: str) -> bool:
    """Whether a sentence can be quoted without those around it."""
    # Else it is a part of a list, or of the sentence above it
    is_whole = not sentence[:1].islower() and re.search(r"[.!?][`*_']*$", sentence) is not None
    return is_whole and _quotable(sentence) and not _LEANING.match(sentence)


def _is_telling(name: str) -> bool:
    """Whether a word alone can only be this name: `read_notes`, `SymbolGraph`, not `read`."""
    return "_" in name.strip("_") or "." in name or bool(re.search(r"[a-z][A-Z]", name))
