; Units
(function_item name: (identifier) @name) @function
(function_signature_item name: (identifier) @name) @function
(struct_item name: (type_identifier) @name) @class
(union_item name: (type_identifier) @name) @class
(trait_item name: (type_identifier) @name) @interface
(enum_item name: (type_identifier) @name) @type
(type_item name: (type_identifier) @name) @type
(macro_definition name: (_) @name) @function
(let_declaration pattern: (identifier) @name value: (closure_expression) @value) @function
(mod_item name: (identifier) @name body: (_)) @scope
(impl_item type: [
  (type_identifier) @name
  (generic_type type: (type_identifier) @name)
  (scoped_type_identifier name: (type_identifier) @name)
  (generic_type type: (scoped_type_identifier name: (type_identifier) @name))
  (reference_type type: (type_identifier) @name)
  (reference_type type: (generic_type type: (type_identifier) @name))
]) @impl
(impl_item type: (_) @name) @impl

; Parameters and bases
(parameters [
  (parameter pattern: (identifier) @parameter)
  (parameter pattern: (mut_pattern (identifier) @parameter))
  (parameter pattern: (ref_pattern (identifier) @parameter))
]) @parameters
(closure_parameters [(identifier) @parameter (parameter pattern: (identifier) @parameter)]) @parameters
(trait_item bounds: (trait_bounds (_) @base))
(attribute_item (attribute) @decorator)
(trait_item body: (declaration_list (function_signature_item name: (identifier) @member)))

; Behaviour
(closure_expression) @anonymous
(call_expression function: [(identifier) (scoped_identifier) (field_expression)] @call)
(call_expression function: (generic_function function: [(identifier) (scoped_identifier) (field_expression)] @call))
(macro_invocation macro: (_) @call)
(return_expression (_) @return)
(yield_expression) @yield
[(if_expression) (while_expression) (for_expression) (loop_expression) (match_arm) (try_expression)] @branch
(binary_expression operator: ["&&" "||"]) @branch
(if_expression
  condition: (_) @guard
  consequence: (block . (expression_statement (return_expression) @outcome) .)
  !alternative)

; The file
(use_declaration argument: (identifier) @imported @module)
(use_declaration argument: (scoped_identifier path: (_) @module name: (identifier) @imported @original))
(use_declaration argument: (use_as_clause path: (scoped_identifier path: (_) @module name: (identifier) @original)
  alias: (identifier) @imported))
(use_declaration argument: (scoped_use_list path: (_) @module list: (use_list [
  (identifier) @imported @original
  (scoped_identifier name: (identifier) @imported @original)
  (use_as_clause path: (identifier) @original alias: (identifier) @imported)])))
(use_declaration argument: (scoped_use_list path: (_) @module @imported list: (use_list (self))))
(use_declaration argument: (use_wildcard (_) @module))
(mod_item name: (identifier) @imported @module !body)
(source_file (const_item name: (identifier) @constant))
(source_file (static_item name: (identifier) @constant))
[(string_content) (raw_string_literal) (line_comment) (block_comment)] @opaque
