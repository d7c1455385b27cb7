// Units of Go files as go/parser sees them, one JSON line a file; paths come on standard input, one a line.
package main

import (
	"bufio"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
)

type unit [5]any

type result struct {
	Path  string `json:"path"`
	Error string `json:"error,omitempty"`
	Units []unit `json:"units"`
}

// units of a file; nil for the documentation of what go/ast attaches none to.
func units(fset *token.FileSet, file *ast.File) []unit {
	found := []unit{}
	add := func(kind, name string, node ast.Node, documented any) {
		first, last := fset.PositionFor(node.Pos(), false).Line, fset.PositionFor(node.End()-1, false).Line
		found = append(found, unit{kind, name, first, last, documented})
	}
	name := func(node ast.Expr) string {
		switch e := node.(type) {
		case *ast.Ident:
			return e.Name
		case *ast.SelectorExpr:
			return e.Sel.Name
		}
		return ""
	}
	ast.Inspect(file, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.FuncDecl:
			add("function", n.Name.Name, n, n.Doc != nil)
		case *ast.GenDecl:
			for _, spec := range n.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					if n.Lparen.IsValid() {
						add("type", s.Name.Name, s, s.Doc != nil)
					} else {
						add("type", s.Name.Name, n, n.Doc != nil)
					}
				case *ast.ValueSpec:
					if len(s.Names) != 1 || len(s.Values) != 1 || n.Tok != token.VAR {
						continue
					}
					if _, is := s.Values[0].(*ast.FuncLit); !is {
						continue
					}
					if n.Lparen.IsValid() {
						add("function", s.Names[0].Name, s, s.Doc != nil)
					} else {
						add("function", s.Names[0].Name, n, n.Doc != nil)
					}
				}
			}
		case *ast.AssignStmt:
			if len(n.Lhs) == 1 && len(n.Rhs) == 1 && (n.Tok == token.DEFINE || n.Tok == token.ASSIGN) {
				if _, is := n.Rhs[0].(*ast.FuncLit); is && name(n.Lhs[0]) != "" {
					add("function", name(n.Lhs[0]), n, nil)
				}
			}
		case *ast.KeyValueExpr:
			if key, isName := n.Key.(*ast.Ident); isName {
				if _, is := n.Value.(*ast.FuncLit); is {
					add("function", key.Name, n, nil)
				}
			}
		}
		return true
	})
	return found
}

func main() {
	output := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, lines.Text(), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			output.Encode(result{Path: lines.Text(), Error: err.Error()})
			continue
		}
		output.Encode(result{Path: lines.Text(), Units: units(fset, file)})
	}
}
