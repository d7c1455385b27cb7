"""What can be shown to someone who asks about a repository: its blocks, and what stands beside the code.

Sections of Markdown, reStructuredText and AsciiDoc (a changelog's entries are sections too), the parts of configuration
and build files, and commit messages are entries of their own, each citable by its path and lines or by its commit. Secrets
are masked in all of them, as they are in blocks. Synthesis does not see these: it works on blocks alone.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath

from ai_forge.data_pipeline.mining.filters import is_test_path
from ai_forge.data_pipeline.schemas import CodeBlock, Document, content_id
from ai_forge.data_pipeline.secrets.masking import is_name_clean, scrub_text
from ai_forge.data_pipeline.source.repository import Repository, blob_id, git_output, read_documents
from ai_forge.data_pipeline.text.markdown import decode, sections, split_front_matter
from ai_forge.data_pipeline.text.words import approximate_tokens

__all__ = ["Entry", "block_entries", "entries_beside_code", "is_benchmark_path", "is_example_path", "is_test_file"]

_MARKDOWN = (".md", ".markdown", ".mdx")
_RST = (".rst",)
_ASCIIDOC = (".adoc", ".asciidoc")
_CONFIGURATION = (
    *(".toml", ".yaml", ".yml", ".cfg", ".ini", ".properties", ".gradle", ".gradle.kts", ".cmake", ".mk", ".mod"),
    *("package.json", "tsconfig.json", "composer.json", "deno.json", "pom.xml", "build.xml", "requirements.txt"),
    *("makefile", "dockerfile", "containerfile", "cmakelists.txt", "justfile", "procfile", "gemfile", "rakefile"),
    *("vagrantfile", "jenkinsfile", ".editorconfig", ".pre-commit-config.yaml", "setup.cfg", "tox.ini", ".csproj"),
)
_LOCKS = re.compile(
    r"(?:^|[/._-])lock(?:\.\w+)?$|(?:^|/)(?:go\.sum|package-lock\.json|pnpm-lock\.yaml)$|\.min\.\w+$", re.I
)
_EXAMPLE_FOLDERS = frozenset({"example", "examples", "sample", "samples", "demo", "demos"})
_TEST_MODULES = frozenset({"test", "tests"})
_BENCHMARK_FOLDERS = frozenset({"bench", "benches", "benchmark", "benchmarks"})
_MAX_FILES = 5_000
_MAX_COMMITS = 5_000
_MAX_LOG_BYTES = 32_000_000
_MAX_SECTION_TOKENS = 400
"""A longer section is cut where one of its blocks begins."""
_MIN_WORDS = 6
"""A heading with an include below it answers nothing."""
_MIN_CONFIGURATION_LINES = 12
"""Shorter parts of a configuration file stay with their neighbours: alone they say little."""
_TRAILER = re.compile(r"^[A-Z][\w-]*(?:-[Bb]y|-[Ii]d)?: \S.*$|\S+@\S+\.\w+")
_RST_RULE = re.compile(r"([=\-~^\"'`#*+.:_<>])\1{2,}\s*$")
_ADOC_TITLE = re.compile(r"={1,6} (?P<title>\S.*)$")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to find. `text` is what lines `first_line` to `last_line` of `path` say; of a commit, its message.

    `name` is a block's qualified name or the headings above a section; `kind` a block's kind, or `test`, `documentation`,
    `configuration`, `commit`; `summary` what the author wrote of it in prose.
    """

    path: str
    first_line: int
    last_line: int
    name: str
    kind: str
    language: str
    text: str
    summary: str = ""
    blob_id: str = ""
    commit: str | None = None
    id: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.id:
            identity = content_id(self.path, str(self.first_line), self.kind, self.text)
            object.__setattr__(self, "id", identity)

    @property
    def citation(self) -> str:
        """How an answer names this entry: `path:first-last`, or `commit:` and twelve digits."""
        return self.path if self.kind == "commit" else f"{self.path}:{self.first_line}-{self.last_line}"

    def document(self) -> Document:
        """The entry as it is shown in a prompt."""
        is_commit = self.kind == "commit"
        return Document(
            block_id=self.id,
            name=self.name,
            citation=self.citation,
            language=self.language,
            text=self.text,
            path=None if is_commit else self.path,
            first_line=None if is_commit else self.first_line,
            last_line=None if is_commit else self.last_line,
            commit=self.commit,
            blob=self.blob_id or None,
        )

    def to_json(self) -> str:
        """One line, as `from_json` reads it."""
        return json.dumps(asdict(self), ensure_ascii=True)

    @classmethod
    def from_json(cls, line: str) -> "Entry":
        """Read what `to_json` wrote."""
        return cls(**json.loads(line))


def is_example_path(path: str) -> bool:
    """Whether a file shows a use of the project and is no part of it.

    >>> is_example_path("examples/a/main.go"), is_example_path("src/example.py")
    (True, False)
    """
    return any(part.lower() in _EXAMPLE_FOLDERS for part in PurePosixPath(path).parts[:-1])


def is_benchmark_path(path: str) -> bool:
    """Whether a file measures the project: it uses all of it and explains none.

    >>> is_benchmark_path("benchmarks/jsx/src/page.tsx"), is_benchmark_path("src/bench.py")
    (True, False)
    """
    return any(part.lower() in _BENCHMARK_FOLDERS for part in PurePosixPath(path).parts[:-1])


def is_test_file(path: str) -> bool:
    """As `is_test_path`, but `testing/` holds what a project offers to those who test with it."""
    folder, _, name = path.rpartition("/")
    return is_test_path(re.sub(r"(^|/)testing(?=/|$)", "", folder).strip("/") + "/" + name)


def _is_test_block(block: CodeBlock) -> bool:
    """Whether a block tests: by its file, or by its module in Rust, where tests stand below what they test."""
    is_inline = block.language == "rust" and not _TEST_MODULES.isdisjoint(block.metadata.qualified_name.split(".")[:-1])
    return is_inline or is_test_file(block.path)


def block_entries(blocks: Sequence[CodeBlock]) -> list[Entry]:
    """The blocks as entries; those that test are of kind `test`."""
    return [
        Entry(
            path=block.path,
            first_line=block.metadata.first_line,
            last_line=block.metadata.last_line,
            name=block.metadata.qualified_name,
            kind="test" if _is_test_block(block) else block.block_type,
            language=block.language,
            text=block.source_code,
            summary=block.docstring or "",
            blob_id=block.metadata.blob_id,
            commit=block.metadata.commit,
            id=block.id,
        )
        for block in blocks
    ]


def entries_beside_code(repository: Repository, *, max_commits: int = _MAX_COMMITS) -> list[Entry]:
    """Sections of the documentation, parts of configuration files, and the newest commit messages."""
    found: list[Entry] = []
    for path, content in read_documents(repository.root, (*_MARKDOWN, *_RST, *_ASCIIDOC, *_CONFIGURATION), _MAX_FILES):
        if _LOCKS.search(path) or not is_name_clean(path):
            continue
        try:
            text = scrub_text(decode(content)[0])
        except ValueError:
            continue
        lower = path.lower()
        if lower.endswith(_MARKDOWN):
            spans, language = _markdown(text), "markdown"
        elif lower.endswith(_RST):
            spans, language = _underlined(text), "rst"
        elif lower.endswith(_ASCIIDOC):
            spans, language = _asciidoc(text), "asciidoc"
        else:
            spans, language = _configuration(text), PurePosixPath(lower).suffix[1:] or "text"
        kind = "configuration" if lower.endswith(_CONFIGURATION) else "documentation"
        lines = text.split("\n")
        for first, last, headings in spans:
            body = "\n".join(lines[first - 1 : last]).strip("\n")
            if len(body.split()) >= _MIN_WORDS:
                name = " › ".join(headings) or PurePosixPath(path).name
                found.append(
                    Entry(
                        path,
                        first,
                        last,
                        name,
                        kind,
                        language,
                        body,
                        blob_id=blob_id(content),
                        commit=repository.commit,
                    )
                )
    return [*found, *_commits(repository, max_commits)]


Spans = Iterator[tuple[int, int, tuple[str, ...]]]


def _markdown(text: str) -> Spans:
    """(first line, last line, headings) of each section, its heading's line among them."""
    body, offset = split_front_matter(text)[1:]
    after = offset
    for section in sections(body, offset):
        if not section.text:
            continue
        first = section.first_line
        if section.heading and first - after <= 3:
            first = max(after + 1, first - 2)
        for start, end in _cut(text.split("\n"), first, section.last_line, section.starts):
            yield start, end, section.headings
        after = section.last_line


def _underlined(text: str) -> Spans:
    """Sections of reStructuredText: a title is a line with a rule of one sign below it, and perhaps above it."""
    lines = text.split("\n")
    titles: list[tuple[int, str, str]] = []
    for number in range(len(lines) - 1):
        title, rule = lines[number], _RST_RULE.match(lines[number + 1])
        if rule and title.strip() and not _RST_RULE.match(title) and len(rule[0].rstrip()) >= len(title.strip()):
            is_overlined = number > 0 and lines[number - 1].rstrip() == rule[0].rstrip()
            titles.append((number - is_overlined, title.strip(), rule[1] * (1 + is_overlined)))
    ranks = list(dict.fromkeys(style for _, _, style in titles))
    yield from _titled(lines, [(number, title, ranks.index(style)) for number, title, style in titles])


def _asciidoc(text: str) -> Spans:
    """Sections of AsciiDoc: a title begins with as many `=` as it is deep."""
    lines = text.split("\n")
    found = [(number, match) for number, line in enumerate(lines) if (match := _ADOC_TITLE.match(line))]
    yield from _titled(lines, [(number, match["title"], len(match[0].split(" ")[0])) for number, match in found])


def _titled(lines: Sequence[str], titles: Sequence[tuple[int, str, int]]) -> Spans:
    """Spans from one title (line from 0, words, rank) to the next; what stands before the first has no heading."""
    starts = [number for number, _, _ in titles]
    above: list[tuple[int, str]] = []
    if not starts or starts[0] > 0:
        yield from ((a, b, ()) for a, b in _cut(lines, 1, starts[0] if starts else len(lines)))
    if not titles:
        return
    for (start, title, rank), end in zip(titles, [*starts[1:], len(lines)], strict=True):
        above = [*((r, t) for r, t in above if r < rank), (rank, title)]
        for first, last in _cut(lines, start + 1, end):
            yield first, last, tuple(words for _, words in above)


def _configuration(text: str) -> Spans:
    """Parts of a configuration file: runs that begin at the left edge, small ones together."""
    lines = text.split("\n")
    edges = [number for number, line in enumerate(lines, start=1) if line[:1].strip() and line[0] not in "#;}])<>/*"]
    if text.lstrip()[:1] in "{<":  # JSON and XML: everything stands one step inside
        steps = [len(line) - len(line.lstrip()) for line in lines if line[:1] in (" ", "\t")]
        step = min(steps, default=0)
        edges = [n for n, line in enumerate(lines, start=1) if line.strip() and len(line) - len(line.lstrip()) == step]
    starts = [1]
    for edge in edges:
        if edge - starts[-1] >= _MIN_CONFIGURATION_LINES:
            starts.append(edge)
    for first, following in zip(starts, [*starts[1:], len(lines) + 1], strict=True):
        for start, end in _cut(lines, first, following - 1):
            yield start, end, ()


def _cut(lines: Sequence[str], first: int, last: int, starts: Sequence[int] = ()) -> Iterator[tuple[int, int]]:
    """Lines `first` to `last` in pieces that are not too long, cut before `starts` or else after empty lines."""
    while first < last and not lines[last - 1].strip():
        last -= 1
    starts = starts or [n + 1 for n in range(first, last) if not lines[n - 1].strip()]
    begin, size, at = first, 0, set(starts)
    for number in range(first, last + 1):
        if size >= _MAX_SECTION_TOKENS // 2 and number in at:
            yield begin, number - 1
            begin, size = number, 0
        size += approximate_tokens(lines[number - 1]) + 1
        if size > 2 * _MAX_SECTION_TOKENS:
            yield begin, number
            begin, size = number + 1, 0
    if begin <= last:
        yield begin, last


def _commits(repository: Repository, max_commits: int) -> list[Entry]:
    """The newest commits whose message says more than its subject's first words, with the files that they changed."""
    if not repository.is_git or repository.commit is None or max_commits < 1:
        return []
    log = git_output(
        repository.root,
        *("log", f"--max-count={max_commits}", "--no-merges", "-z", "--no-show-signature", "--no-notes", "--no-color"),
        *("--encoding=UTF-8", "--format=tformat:%H%n%B", "HEAD", "--", "."),
        max_bytes=_MAX_LOG_BYTES,
    )
    found: list[Entry] = []
    for raw in (log or b"").split(b"\0"):
        commit, _, message = raw.decode("utf-8", "replace").partition("\n")
        if len(commit) != 40:
            continue
        lines = [line.rstrip() for line in scrub_text(message).split("\n") if not _TRAILER.search(line)]
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
        if text:
            subject, n_lines = text.partition("\n")[0], text.count("\n") + 1
            found.append(Entry(f"commit:{commit[:12]}", 1, n_lines, subject, "commit", "text", text, commit=commit))
    return found
