//! Units of Rust files as syn parses them, one JSON line a file; paths come on standard input, one a line.

use serde_json::{json, Value};
use std::io::BufRead;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::Attribute;

struct Units<'a> {
    lines: Vec<&'a str>,
    found: Vec<Value>,
}

impl Units<'_> {
    /// `///` and `/** */` are attributes to syn: told from `#[doc]` by the text at their place.
    fn is_comment(&self, attribute: &Attribute) -> bool {
        let start = attribute.pound_token.span.start();
        let rest: String = self.lines[start.line - 1].chars().skip(start.column).collect();
        attribute.path().is_ident("doc") && !rest.starts_with('#')
    }

    fn add(&mut self, kind: &str, name: String, attributes: &[Attribute], spanned: &dyn Fn() -> proc_macro2::Span) {
        let documented = attributes.iter().any(|a| self.is_comment(a));
        let span = spanned();
        let own = attributes.iter().filter(|a| !self.is_comment(a)).map(|a| a.span().start().line);
        let first = own.chain([span.start().line]).min().unwrap();
        self.found.push(json!([kind, name, first, span.end().line, documented]));
    }
}

macro_rules! units {
    ($($visit:ident, $type:ty, $kind:literal, $($name:ident).+;)*) => {
        $(fn $visit(&mut self, node: &'ast $type) {
            let mut bare = node.clone();
            bare.attrs.clear();
            self.add($kind, node.$($name).+.to_string(), &node.attrs, &|| bare.span());
            visit::$visit(self, node);
        })*
    };
}

impl<'ast> Visit<'ast> for Units<'_> {
    units! {
        visit_item_fn, syn::ItemFn, "function", sig.ident;
        visit_impl_item_fn, syn::ImplItemFn, "function", sig.ident;
        visit_trait_item_fn, syn::TraitItemFn, "function", sig.ident;
        visit_foreign_item_fn, syn::ForeignItemFn, "function", sig.ident;
        visit_item_struct, syn::ItemStruct, "type", ident;
        visit_item_union, syn::ItemUnion, "type", ident;
        visit_item_enum, syn::ItemEnum, "type", ident;
        visit_item_trait, syn::ItemTrait, "type", ident;
        visit_item_type, syn::ItemType, "type", ident;
        visit_impl_item_type, syn::ImplItemType, "type", ident;
    }

    fn visit_item_macro(&mut self, node: &'ast syn::ItemMacro) {
        if let Some(name) = &node.ident {
            let mut bare = node.clone();
            bare.attrs.clear();
            self.add("function", name.to_string(), &node.attrs, &|| bare.span());
        }
    }

    fn visit_local(&mut self, node: &'ast syn::Local) {
        let pattern = match &node.pat {
            syn::Pat::Type(typed) => &*typed.pat,
            other => other,
        };
        if let (syn::Pat::Ident(name), Some(init)) = (pattern, &node.init) {
            if matches!(*init.expr, syn::Expr::Closure(_)) && name.subpat.is_none() {
                let mut bare = node.clone();
                bare.attrs.clear();
                self.add("function", name.ident.to_string(), &node.attrs, &|| bare.span());
            }
        }
        visit::visit_local(self, node);
    }
}

fn main() {
    for path in std::io::stdin().lock().lines().map(Result::unwrap) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let result = match syn::parse_file(&text) {
            Ok(file) => {
                let mut units = Units { lines: text.lines().collect(), found: vec![] };
                units.visit_file(&file);
                json!({"path": path, "units": units.found})
            }
            Err(error) => json!({"path": path, "error": error.to_string()}),
        };
        println!("{result}");
    }
}
