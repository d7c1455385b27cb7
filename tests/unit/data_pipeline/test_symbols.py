"""Edges of the symbol graph on code small enough to know the truth."""

from ai_forge.data_pipeline import MiningResult, SourceFile, SymbolGraph, mine
from ai_forge.data_pipeline.repository import blob_id
from ai_forge.data_pipeline.symbols import overlap

FILES = {
    "pkg/store.py": """
class Store:
    def get(self, key):
        return self._load(key)

    def _load(self, key):
        return helper(key)


def helper(key):
    return key
""",
    "pkg/other.py": """
def helper(key):
    return None


def only_here(x):
    return x
""",
    "pkg/use.py": """
from pkg.store import Store, helper as h
from pkg import other
import os


def main(path):
    store = Store()
    store.get(path)
    path.only_here()
    os.path.join(path)
    return h(path), other.only_here(path), helper(path)
""",
    "tests/test_use.py": """
from pkg.use import main


def test_main():
    assert main("a")
""",
    "lib/app.js": """
const { View } = require('./view');
app.render = function render(name) {
  this.set(name);
  return new View(name);
};
app.set = function set(name) { return name; };
""",
    "lib/view.js": "class View {\n  show() { return lookup(this); }\n}\nfunction lookup(v) { return v; }\n",
}


def graph() -> SymbolGraph:
    sources = [SourceFile(path, text.encode(), blob_id(text.encode())) for path, text in FILES.items()]
    result: MiningResult = mine(sources)
    return SymbolGraph(result.documents, result.imports)


def edges(of: SymbolGraph) -> set[tuple[str, str]]:
    def name(block):  # type: ignore[no-untyped-def]
        return f"{block.path}:{block.metadata.qualified_name}"

    return {(name(block), name(target)) for block in of.blocks for target in of.callees(block)}


def test_calls_are_resolved_through_self_scopes_and_imports() -> None:
    assert edges(graph()) == {
        ("pkg/store.py:Store.get", "pkg/store.py:Store._load"),
        ("pkg/store.py:Store._load", "pkg/store.py:helper"),
        ("pkg/use.py:main", "pkg/store.py:Store"),
        ("pkg/use.py:main", "pkg/store.py:helper"),
        ("pkg/use.py:main", "pkg/other.py:only_here"),
        ("tests/test_use.py:test_main", "pkg/use.py:main"),
        ("lib/app.js:app.render", "lib/app.js:app.set"),
        ("lib/app.js:app.render", "lib/view.js:View"),
        ("lib/view.js:View.show", "lib/view.js:lookup"),
    }


def test_callers_definitions_and_siblings() -> None:
    symbols = graph()
    (main,) = symbols.definitions("main")
    assert [b.name for b in symbols.callers(main)] == ["test_main"]
    assert [b.path for b in symbols.definitions("helper")] == ["pkg/other.py", "pkg/store.py"]
    (load,) = symbols.definitions("_load")
    assert [b.name for b in symbols.siblings(load)] == ["get", "helper"]
    (store,) = symbols.definitions("Store")
    assert overlap(store, load)
    assert not overlap(main, load)


def test_edges_of_this_project_are_between_different_blocks(mined: MiningResult) -> None:
    symbols = SymbolGraph(mined.documents, mined.imports)
    found = edges(symbols)
    assert len(found) > 100
    prefix = "src/ai_forge/data_pipeline/"
    assert (f"{prefix}miner.py:parse_repository", f"{prefix}repository.py:read_repository") in found
    assert (f"{prefix}raft_generator.py:synthesize", f"{prefix}verification.py:verify_example") in found
