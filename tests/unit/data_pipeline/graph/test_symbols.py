"""Edges of the symbol graph on code small enough to know the truth."""

from ai_forge.config.data import MinerSettings
from ai_forge.data_pipeline import MiningResult, SourceFile, SymbolGraph, mine
from ai_forge.data_pipeline.graph.symbols import EdgeKind, overlap
from ai_forge.data_pipeline.source.repository import blob_id

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
        ("pkg/use.py:main", "pkg/store.py:Store.get"),
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
    assert (f"{prefix}miner.py:parse_repository", f"{prefix}source/repository.py:read_repository") in found
    assert (f"{prefix}raft_generator.py:synthesize", f"{prefix}examples/verification.py:verify_example") in found


SHAPES = {
    "shapes/base.py": """
class Shape:
    def area(self):
        return 0


class Box(Shape):
    def area(self):
        return super().area() + side(self)


def side(shape):
    return shape.width


default = Box()
""",
    "shapes/draw.py": """
from shapes.base import Box, Shape, default


def draw(shape):
    if isinstance(shape, Box):
        return shape.area()
    return default.area()


def either(flag):
    thing = Shape() if flag else Box()
    return thing.area()


def guess(anything):
    return anything.only_method()


class Painter:
    def only_method(self):
        return draw(None)
""",
    "tests/test_draw.py": "from shapes.draw import draw, Painter\n\n\ndef test_draw():\n    assert draw(Painter)\n",
    "calc/Store.java": """
package calc;
class Store extends Base implements Closing {
    int load(int k) { return Helper.twice(k) + own(k); }
    int own(int k) { return k; }
}
class Base { }
class Helper {
    static int twice(int k) { return k * 2; }
}
""",
    "zoo/zoo.rs": """
pub struct Cage { n: u32 }
impl Cage {
    pub fn new() -> Cage { Cage { n: 0 } }
    pub fn open(&self) -> u32 { self.count() }
    fn count(&self) -> u32 { self.n }
}
pub fn build() -> Cage { Cage::new() }
""",
}


def shapes(*, with_sources: bool) -> tuple[SymbolGraph, dict[str, str]]:
    texts = {path: text.encode() for path, text in SHAPES.items()}
    result = mine([SourceFile(path, text, blob_id(text)) for path, text in texts.items()])
    built = SymbolGraph(result.documents, result.imports, texts if with_sources else None)
    return built, {b.id: f"{b.path.rpartition('/')[2]}:{b.metadata.qualified_name}" for b in built.blocks}


def kinds(
    built: SymbolGraph, places: dict[str, str], kind: EdgeKind, *, ambiguous: bool = False
) -> set[tuple[str, str]]:
    return {(places[e.source], places[e.target]) for e in built.edges(kind) if e.ambiguous == ambiguous}


def test_every_kind_of_edge_and_what_is_ambiguous() -> None:
    built, places = shapes(with_sources=True)
    assert kinds(built, places, "extends") == {
        ("base.py:Box", "base.py:Shape"),
        ("Store.java:Store", "Store.java:Base"),
    }
    calls = kinds(built, places, "calls")
    assert calls == {
        ("base.py:Box.area", "base.py:Shape.area"),
        ("base.py:Box.area", "base.py:side"),
        ("draw.py:draw", "base.py:Box.area"),
        ("draw.py:either", "base.py:Shape"),
        ("draw.py:either", "base.py:Box"),
        ("draw.py:Painter.only_method", "draw.py:draw"),
        ("test_draw.py:test_draw", "draw.py:draw"),
        ("Store.java:Store.load", "Store.java:Helper.twice"),
        ("Store.java:Store.load", "Store.java:Store.own"),
        ("zoo.rs:Cage.open", "zoo.rs:Cage.count"),
        ("zoo.rs:build", "zoo.rs:Cage.new"),
    }
    assert kinds(built, places, "calls", ambiguous=True) == {
        ("draw.py:either", "base.py:Shape.area"),
        ("draw.py:either", "base.py:Box.area"),
        ("draw.py:guess", "draw.py:Painter.only_method"),
    }
    assert ("draw.py:draw", "base.py:Box") in kinds(built, places, "references")
    assert ("draw.py:Painter", "draw.py:Painter.only_method") in kinds(built, places, "defines")
    assert kinds(built, places, "tests") == {
        ("test_draw.py:test_draw", "draw.py:draw"),
        ("test_draw.py:test_draw", "draw.py:Painter"),
    }


def test_neighbours_leave_ambiguous_edges_out() -> None:
    built, places = shapes(with_sources=True)

    def named(blocks):  # type: ignore[no-untyped-def]
        return [places[block.id] for block in blocks]

    (either,), (draw,) = built.definitions("either"), built.definitions("draw")
    (shape,), (box,) = built.definitions("Shape"), built.definitions("Box")
    assert named(built.callees(either)) == ["base.py:Shape", "base.py:Box"]
    assert named(built.bases(box)) == ["base.py:Shape"]
    assert named(built.subclasses(shape)) == ["base.py:Box"]
    assert named(built.tests(draw)) == ["test_draw.py:test_draw"]
    assert named(built.references(draw)) == ["base.py:Box"]
    assert named(built.neighbours(box)) == ["base.py:Shape", "draw.py:either"]
    assert built.imported_files("shapes/draw.py") == ["shapes/base.py"]
    assert built.imported_files("tests/test_draw.py") == ["shapes/draw.py"]
    assert built.imported_files("zoo/zoo.rs") == []


def test_without_sources_only_what_stands_between_definitions_is_missed() -> None:
    whole, places = shapes(with_sources=True)
    part, _ = shapes(with_sources=False)
    missed = kinds(whole, places, "calls") - kinds(part, places, "calls")
    assert missed <= {("draw.py:draw", "base.py:Box.area")}
    assert kinds(part, places, "calls") <= kinds(whole, places, "calls")


def test_resolve_answers_for_one_written_name() -> None:
    built, places = shapes(with_sources=True)
    (draw,), (guess,) = built.definitions("draw"), built.definitions("guess")
    assert (found := built.resolve(draw, "default.area")) is not None
    assert places[found.id] == "base.py:Box.area"
    assert built.resolve(guess, "anything.only_method") is None
    assert built.resolve(guess, "nothing") is None


def test_a_call_in_a_part_of_a_long_function_belongs_to_that_part() -> None:
    lines = [f"    value_{n} = first(value_{n - 1} + {n}, {n}) if {n} else None" for n in range(1, 60)]
    text = "\n".join(["def first(a, b=0):", "    return a", "", "def last(a):", "    return a", "", "def long(value_0):",
                      '    """Do many things."""', *lines, "    return last(value_59)", ""]).encode()  # fmt: skip
    result = mine([SourceFile("long.py", text, blob_id(text))], MinerSettings(max_tokens=400))
    for sources in (None, {"long.py": text.replace(b"\n", b"\r\n")}):
        built = SymbolGraph(result.documents, result.imports, sources)
        parts = [block for block in built.blocks if block.name == "long"]
        assert len(parts) > 2
        assert [block.name for block in built.callees(parts[1])] == ["first"]
        assert [block.name for block in built.callees(parts[-1])] == ["first", "last"]
