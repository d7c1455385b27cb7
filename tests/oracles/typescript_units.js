// Units of JavaScript and TypeScript files as the TypeScript compiler parses them, one JSON line a file.
// Paths come on standard input, one a line; the first argument is the folder of the `typescript` package.
"use strict";
const fs = require("node:fs");
const ts = require(process.argv[2]);

function scriptKind(path) {
  if (path.endsWith(".tsx")) return ts.ScriptKind.TSX;
  return /\.[cm]?ts$/.test(path) ? ts.ScriptKind.TS : ts.ScriptKind.JSX;
}

function isFunction(node) {
  return node !== undefined && (ts.isArrowFunction(node) || ts.isFunctionExpression(node));
}

function bound(name, value) {
  if (isFunction(value)) return [name, "function", value];
  return value !== undefined && ts.isClassExpression(value) ? [name, "type", value] : null;
}

function lastAssignment(node) {
  while (ts.isBinaryExpression(node.right) && node.right.operatorToken.kind === ts.SyntaxKind.EqualsToken) node = node.right;
  return node;
}

// [name, kind, documented node] of each unit that `node` is.
function unitsOf(node, file) {
  const text = (name) => name.getText(file);
  if (ts.isFunctionDeclaration(node)) return [[node.name ? text(node.name) : "default", "function"]];
  if (ts.isClassDeclaration(node)) return [[node.name ? text(node.name) : "default", "type"]];
  if (ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node) || ts.isEnumDeclaration(node)) return [[text(node.name), "type"]];
  if (ts.isConstructorDeclaration(node)) return [["constructor", "function"]];
  if (ts.isAccessor(node) && !ts.isClassLike(node.parent) && !ts.isObjectLiteralExpression(node.parent)) return [];
  if (ts.isMethodDeclaration(node) || ts.isAccessor(node)) return [[text(node.name), "function"]];
  if (ts.isPropertyDeclaration(node) || ts.isPropertyAssignment(node)) return [bound(text(node.name), node.initializer)].filter(Boolean);
  if (ts.isVariableStatement(node)) {
    return node.declarationList.declarations
      .filter((one) => ts.isIdentifier(one.name)).map((one) => bound(text(one.name), one.initializer)).filter(Boolean);
  }
  if (ts.isExportAssignment(node) && !node.isExportEquals) {
    const value = node.expression;
    return isFunction(value) ? [[value.name ? text(value.name) : "default", "function"]] : [];
  }
  if (ts.isExpressionStatement(node) && ts.isBinaryExpression(node.expression) && node.expression.operatorToken.kind === ts.SyntaxKind.EqualsToken) {
    const { left, right } = lastAssignment(node.expression);
    if (!ts.isIdentifier(left) && !ts.isPropertyAccessExpression(left)) return [];
    const name = text(left);
    const unit = bound(name, right);
    if (unit && (name === "module.exports" || name === "exports")) unit[0] = right.name ? text(right.name) : "exports";
    return unit ? [unit] : [];
  }
  return [];
}

for (const path of fs.readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const source = fs.readFileSync(path, "utf8").replace(/^\uFEFF/, "").replace(/\r\n?/g, "\n");
  const file = ts.createSourceFile(path, source, { languageVersion: ts.ScriptTarget.Latest, jsDocParsingMode: ts.JSDocParsingMode.ParseAll }, true, scriptKind(path));
  if (file.parseDiagnostics.length) {
    console.log(JSON.stringify({ path, error: ts.flattenDiagnosticMessageText(file.parseDiagnostics[0].messageText, " ") }));
    continue;
  }
  const starts = [0];
  for (let at = source.indexOf("\n"); at >= 0; at = source.indexOf("\n", at + 1)) starts.push(at + 1);
  const line = (position) => {
    let low = 0, high = starts.length;
    while (high - low > 1) { const middle = (low + high) >> 1; if (starts[middle] <= position) low = middle; else high = middle; }
    return low + 1;
  };
  const units = [];
  (function visit(node) {
    for (const [name, kind] of unitsOf(node, file)) {
      units.push([kind, name, line(node.getStart(file)), line(node.getEnd()), Boolean(node.jsDoc && node.jsDoc.length)]);
    }
    ts.forEachChild(node, visit);
  })(file);
  console.log(JSON.stringify({ path, units }));
}
