"""What a reader knows about a call: each way that the code says it, in Python and in the JavaScript family."""

import textwrap

import pytest

from ai_forge.data_pipeline.graph.scopes import FileScopes, Resolver, javascript_scopes, python_scopes, resolver_of
from ai_forge.data_pipeline.graph.scopes.python_expressions import type_chains


def resolver(files: dict[str, str]) -> Resolver:
    read: dict[str, FileScopes] = {}
    for path, text in files.items():
        code = textwrap.dedent(text).encode()
        language = {"ts": "typescript", "tsx": "tsx"}.get(path.rpartition(".")[2], "javascript")
        scopes = python_scopes(path, code) if path.endswith(".py") else javascript_scopes(path, code, language)
        assert scopes is not None
        read[path] = scopes
    return resolver_of(read)


def calls(files: dict[str, str], path: str) -> dict[str, str]:
    """For each call of a file: the definition, `?` in front where it is not certain, nothing where none is known."""
    found = resolver(files)
    answers = {}
    for scope in found.files[path].scopes:
        for site in scope.calls:
            targets, certain = found.called(site.chain, scope)
            named = " ".join(f"{t.path.rpartition('/')[2]}:{t.qualified_name}" for t in targets)
            answers["".join(site.chain)] = named if certain or not named else f"? {named}"
    return answers


STORE = """
    from __future__ import annotations
    from contextlib import contextmanager
    from typing import Iterator, Optional, Self

    class Base:
        def close(self): pass
        def copy(self) -> Self: return self

    class Store(Base):
        kind = Base()
        def __init__(self, parent: Optional["Store"] = None):
            super().__init__()
            self.parent = parent
            self.items: dict[str, Item] = {}
            self.log = Log()
        @property
        def first(self) -> Item: return self.items["a"]
        @classmethod
        def make(cls): return cls()
        @staticmethod
        def plain(): return Item()
        def __enter__(self): return self
        def __iter__(self) -> Iterator[Item]: yield self.first
        def __call__(self): return Item()
        def save(self): super().close()

    class Item:
        def run(self): pass
        def next(self): return Item()

    class Log:
        def info(self): pass

    @contextmanager
    def opened() -> Iterator[Store]:
        yield Store()

    def either(flag):
        return Store() if flag else Item()
"""


@pytest.mark.parametrize(
    ("line", "call", "expected"),
    [
        ("s = Store(); s.save()", "s.save", "store.py:Store.save"),
        ("Store().close()", "Store().close", "store.py:Base.close"),
        ("Store.make().save()", "Store.make().save", "store.py:Store.save"),
        ("Store.plain().run()", "Store.plain().run", "store.py:Item.run"),
        ("Store().log.info()", "Store().log.info", "store.py:Log.info"),
        ("Store().first.run()", "Store().first.run", "store.py:Item.run"),
        ("Store().parent.save()", "Store().parent.save", "store.py:Store.save"),
        ("Store().items['x'].run()", "Store().items[].run", "store.py:Item.run"),
        ("Store().items.get('x').run()", "Store().items.get().run", "store.py:Item.run"),
        ("Store().copy().save()", "Store().copy().save", "store.py:Store.save"),
        ("Store().kind.close()", "Store().kind.close", "store.py:Base.close"),
        ("Store()()", "Store()", "store.py:Store.__call__"),
        ("Store()().run()", "Store()().run", "store.py:Item.run"),
        ("with Store() as w: w.save()", "w.save", "store.py:Store.save"),
        ("with opened() as o: o.save()", "o.save", "store.py:Store.save"),
        ("for i in Store(): i.run()", "i.run", "store.py:Item.run"),
        ("for k, v in Store().items.items(): v.run()", "v.run", "store.py:Item.run"),
        ("for n, e in enumerate([Item()]): e.run()", "e.run", "store.py:Item.run"),
        ("[c.run() for c in [Item()]]", "c.run", "store.py:Item.run"),
        ("Item().next().next()", "Item().next().next", "store.py:Item.next"),
        ("either(1).save()", "either().save", "store.py:Store.save"),
        ("either(1)()", "either()", "store.py:Store.__call__"),
        ("f = Store; f().save()", "f().save", "store.py:Store.save"),
        ("if (w := Item()): w.run()", "w.run", "store.py:Item.run"),
        ("x = Item(); x = Store(); x.close()", "x.close", "store.py:Base.close"),
        ("y = Log() or Item(); y.info()", "y.info", "store.py:Log.info"),
        ("unknown().run()", "unknown().run", ""),
        ("len('a'.run())", "len", ""),
        ("import os; os.close()", "os.close", ""),
        ("z = Store() if q else Other(); z.close()", "z.close", "? store.py:Base.close use.py:Other.close"),
        ("z = unknown(); z = Store(); z.save()", "z.save", "? store.py:Store.save"),
    ],
)
def test_python_receivers(line: str, call: str, expected: str) -> None:
    use = f"from store import *\nclass Other:\n    def close(self): pass\ndef go(q):\n    {line}"
    found = calls({"store.py": STORE, "use.py": use}, "use.py")
    assert found[call] == expected


def test_python_imports_reach_the_definition_through_packages() -> None:
    files = {
        "src/app/__init__.py": "from .core.engine import Engine as Motor\nfrom .helpers import *\n",
        "src/app/core/__init__.py": "from . import engine\n",
        "src/app/core/engine.py": "class Engine:\n    def start(self): pass\n",
        "src/app/helpers.py": "def helper(): pass\ndef _hidden(): pass\n",
        "src/app/main.py": """
            import app
            import app.core.engine
            import app.helpers as h
            from app import Motor, helper
            from app.core import engine
            from .core.engine import Engine
            from . import helpers
            from other import thing
            def go():
                app.Motor().start()
                app.core.engine.Engine()
                h.helper()
                Motor()
                helper()
                engine.Engine().start()
                helpers.helper()
                thing()
                app._hidden()
            """,
    }
    assert calls(files, "src/app/main.py") == {
        "app.Motor().start": "engine.py:Engine.start",
        "app.Motor": "engine.py:Engine",
        "app.core.engine.Engine": "engine.py:Engine",
        "h.helper": "helpers.py:helper",
        "Motor": "engine.py:Engine",
        "helper": "helpers.py:helper",
        "engine.Engine().start": "engine.py:Engine.start",
        "engine.Engine": "engine.py:Engine",
        "helpers.helper": "helpers.py:helper",
        "thing": "",
        "app._hidden": "",
    }


def test_a_standard_module_is_not_a_file_of_the_same_name_elsewhere() -> None:
    files = {"tests/data/random.py": "def choice(): pass\n", "src/use.py": "import random\ndef f(): random.choice()\n"}
    assert calls(files, "src/use.py") == {"random.choice": ""}


def test_parameters_take_what_the_repository_passes_and_fixtures_what_they_give() -> None:
    files = {
        "app.py": """
            class A:
                def run(self): pass
            class B:
                def run(self): pass
            def one(x): x.run()
            def two(x): x.run()
            def three(x): x.run()
            def call(f): f()
            def go(y):
                one(A()); two(A()); two(B()); three(A()); three(y); call(f=go)
            """,
        "tests/conftest.py": "import pytest\nfrom app import A\n@pytest.fixture\ndef thing():\n    yield A()\n",
        "tests/test_app.py": "def test_it(thing):\n    thing.run()\n",
    }
    found = resolver(files)
    scopes = {scope.qualified_name: scope for scope in found.files["app.py"].scopes}

    def target(name: str, *chain: str) -> tuple[list[str], bool]:
        definitions, certain = found.called(chain, scopes[name])
        return [d.qualified_name for d in definitions], certain

    assert target("one", "x", ".run") == (["A.run"], True)
    assert target("two", "x", ".run") == (["A.run", "B.run"], False)
    assert target("three", "x", ".run") == (["A.run"], False)
    assert target("call", "f") == (["go"], True)
    assert calls(files, "tests/test_app.py") == {"thing.run": "app.py:A.run"}


def test_overloads_setters_and_conditional_definitions() -> None:
    text = """
        from typing import overload
        class P:
            @overload
            def get(self, a: int) -> int: ...
            @overload
            def get(self, a: str) -> str: ...
            def get(self, a): return Q()
            @property
            def q(self): return Q()
            @q.setter
            def q(self, value): pass
        class Q:
            def run(self): pass
        if P:
            def pick(): return 1
        else:
            def pick(): return 2
        def go():
            P().get(1).run(); P().q.run(); pick()
        """
    found = resolver({"p.py": text})
    go = found.files["p.py"].scopes[-1]
    definitions, certain = found.called(("P", "()", ".get"), go)
    assert (definitions[0].first_line, certain) == (8, True)
    assert [d.qualified_name for d in found.called(("P", "()", ".q", ".run"), go)[0]] == ["Q.run"]
    assert found.called(("pick",), go)[1] is False


def test_endless_definitions_end() -> None:
    text = """
        class N:
            def __iter__(self): return self
            def __next__(self): return N()
            def __call__(self): return self()
        class M(M): pass
        x = x.y()
        a = b
        b = a
        def f(): return f()
        def go():
            for n in N(): n.go()
            for m in N().__iter__(): m()
            x.y(); a.z(); f().g(); M().h()
        """
    assert calls({"n.py": text}, "n.py")["n.go"] == ""


def test_types_as_chains() -> None:
    assert type_chains("list[Store] | None") == [("Store", "()", "[*]")]
    assert type_chains("'pkg.Store'") == [("pkg", ".Store", "()")]
    assert type_chains("type[Store]") == [("Store",)]
    assert type_chains("Union[A, 'B']") == [("A", "()"), ("B", "()")]
    assert type_chains("Generator[A, None, B]") == [("A", "()", "[*]")]
    assert type_chains("tuple[()]") == type_chains("Optional[()]") == []
    assert type_chains("tuple[A, ...]") == [("A", "()", "[*]")]
    assert type_chains("Callable[[A], B]") == type_chains("tuple[A, B]") == type_chains("not a type") == []


TYPESCRIPT = {
    "lib/app.js": """
        const { View } = require('./view');
        const util = require('./util');
        app.render = function render(name) { this.set(name); util.fmt(name); return new View(name).show(); };
        app.set = function set(name) { return name; };
        """,
    "lib/view.js": """
        class View { constructor() { this.m = new Model(); } show() { this.m.save(); return lookup(this); } }
        function lookup(v) { return v; }
        class Model extends Base { save() { super.save(); } }
        class Base { save() {} }
        module.exports = { View, lookup };
        """,
    "lib/util.js": "exports.fmt = function (x) { return help(x); };\nfunction help(x) { return x }\n",
    "src/index.ts": "export { Store as S } from './store';\nexport * from './more';\nexport default function main() {}\n",
    "src/store.ts": """
        export class Store<T> {
          private items: Item[] = [];
          constructor(private readonly log: Logger) {}
          get(k: string): Item { this.log.info(k); return this.items.find(i => i.is(k))!; }
          static make(): Store { return new this(); }
        }
        class Logger { info(x: string) {} }
        class Item { is(k) { return true } run() {} }
        """,
    "src/more.ts": "export const twice = (n: number) => n * 2;\nexport interface Shape { area(): number }\n",
    "src/use.tsx": """
        import main, { S, twice } from '.';
        import * as idx from './index.js';
        import type { Shape } from './more';
        import React from 'react';
        const Button = ({ label }) => null;
        const table = { row() { return this.cell(); }, cell: () => 1 };
        function App(p: { s: number }) { React.memo(App); return <Button label={twice(p.s)} />; }
        export async function go(sh: Shape, m: any) {
          const s = new S(null);
          const it = await s.get('a');
          it.run(); idx.twice(2); main(); S.make().get('b').run(); sh.area(); table.row(); m.run();
        }
        """,
}


def test_javascript_and_typescript_are_resolved_across_files() -> None:
    assert calls(TYPESCRIPT, "lib/app.js") == {
        "this.set": "app.js:app.set",
        "util.fmt": "util.js:fmt",
        "View().show": "view.js:View.show",
        "View": "view.js:View",
    }
    assert calls(TYPESCRIPT, "lib/view.js") == {
        "Model": "view.js:Model",
        "this.m.save": "view.js:Model.save",
        "lookup": "view.js:lookup",
        "super().save": "view.js:Base.save",
    }
    assert calls(TYPESCRIPT, "src/store.ts") == {
        "this.log.info": "store.ts:Logger.info",
        "this.items.find": "",
        "i.is": "",
        "this": "store.ts:Store",
    }
    assert calls(TYPESCRIPT, "src/use.tsx") == {
        "this.cell": "use.tsx:table.cell",
        "React.memo": "",
        "Button": "use.tsx:Button",
        "twice": "more.ts:twice",
        "S": "store.ts:Store",
        "s.get": "store.ts:Store.get",
        "it.run": "store.ts:Item.run",
        "idx.twice": "more.ts:twice",
        "main": "index.ts:main",
        "S.make().get().run": "store.ts:Item.run",
        "S.make().get": "store.ts:Store.get",
        "S.make": "store.ts:Store.make",
        "sh.area": "more.ts:Shape.area",
        "table.row": "use.tsx:table.row",
        "m.run": "",
    }
