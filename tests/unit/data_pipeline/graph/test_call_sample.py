"""Call edges of Python against 325 calls labelled by hand (see tests/fixtures/calls/README.md)."""

import zipfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from ai_forge.data_pipeline import SourceFile, SymbolGraph, mine
from ai_forge.data_pipeline.graph.scopes import FileScopes, Resolver, python_scopes, resolver_of
from ai_forge.data_pipeline.source.repository import blob_id

FOLDER = Path(__file__).parents[3] / "fixtures" / "calls"


@dataclass(frozen=True)
class Labelled:
    kind: str
    repository: str
    path: str
    line: int
    caller: str
    call: str
    callee: str


def sample() -> list[Labelled]:
    rows = [line.split("\t") for line in (FOLDER / "labels.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    return [Labelled(kind, path.split("/")[0], path, int(n), *rest) for kind, path, n, *rest in rows]


@pytest.fixture(scope="module")
def sources() -> dict[str, dict[str, bytes]]:
    """The text of each repository's files."""
    texts: dict[str, dict[str, bytes]] = defaultdict(dict)
    with zipfile.ZipFile(FOLDER / "sources.zip") as archive:
        for name in archive.namelist():
            if name.endswith(".py"):
                repository, _, inside = name.partition("/")
                texts[repository][inside if repository == "stdlib" else name] = archive.read(name)
    return texts


def answers(sources: dict[str, dict[str, bytes]]) -> dict[Labelled, str | None]:
    """What the resolver is certain of for each labelled call."""
    resolvers: dict[str, tuple[dict[str, FileScopes], Resolver]] = {}
    for repository, texts in sources.items():
        files = {path: scopes for path, text in texts.items() if (scopes := python_scopes(path, text))}
        resolvers[repository] = (files, resolver_of(files))
    found: dict[Labelled, str | None] = {}
    for row in sample():
        files, resolver = resolvers[row.repository]
        prefix = "stdlib/" if row.repository == "stdlib" else ""
        scopes = files[row.path.removeprefix(prefix)].scopes
        sites = [(scope, site) for scope in scopes for site in scope.calls if site.line == row.line]
        same = [(scope, site) for scope, site in sites if "".join(site.chain) == row.call]
        targets = [resolver.called(site.chain, scope) for scope, site in same]
        sure = {f"{prefix}{definition.path}:{definition.qualified_name}" for d, ok in targets if ok for definition in d}
        assert same or row.callee == "outside", f"{row} is not seen as a call"
        found[row] = sure.pop() if len(sure) == 1 else None
    return found


def test_precision_and_recall_of_certain_call_edges(sources: dict[str, dict[str, bytes]]) -> None:
    found = answers(sources)
    assert len(found) >= 300
    inside = {row for row in found if ":" in row.callee}
    right = {row for row in inside if found[row] == row.callee}
    claimed = {row for row, answer in found.items() if answer is not None}
    assert len(inside) >= 140
    assert len(right) / len(claimed) >= 0.95, [row for row in claimed if found[row] != row.callee]
    assert len(right) / len(inside) >= 0.85, inside - right
    by_kind = Counter(row.kind for row in right)
    assert (
        min(by_kind[kind] for kind in ("name", "self.method", "self.attr.method", "name.attr", "super", "chained")) > 0
    )


def test_the_graph_has_the_edges_of_the_labelled_calls(sources: dict[str, dict[str, bytes]]) -> None:
    edges: dict[str, set[tuple[str, str]]] = {}
    for repository, texts in sources.items():
        files = [SourceFile(path, text, blob_id(text)) for path, text in texts.items()]
        mined = mine(files, own_licence="MIT")
        graph = SymbolGraph(mined.documents, mined.imports, texts)
        prefix = "stdlib/" if repository == "stdlib" else ""
        places = {block.id: f"{prefix}{block.path}:{block.metadata.qualified_name}" for block in graph.blocks}
        edges[repository] = {
            (places[edge.source], places[edge.target]) for edge in graph.edges("calls") if not edge.ambiguous
        }
    wanted = {row for row in sample() if ":" in row.callee and f"{row.path}:{row.caller}" != row.callee}
    have = {row for row in wanted if (f"{row.path}:{row.caller}", row.callee) in edges[row.repository]}
    assert len(have) / len(wanted) >= 0.85, wanted - have
