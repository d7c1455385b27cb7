; Units
(function_declaration name: (identifier) @name) @function
(function_signature name: (identifier) @name) @function
(generator_function_declaration name: (identifier) @name) @function
(lexical_declaration (variable_declarator name: (identifier) @name
  value: [(arrow_function) (function_expression) (generator_function)] @value)) @function
(variable_declaration (variable_declarator name: (identifier) @name
  value: [(arrow_function) (function_expression) (generator_function)] @value)) @function
(expression_statement (assignment_expression left: [(identifier) (member_expression)] @name
  right: [(arrow_function) (function_expression) (generator_function)] @value)) @function
(expression_statement (assignment_expression left: [(identifier) (member_expression)] @name
  right: (class) @value)) @class
(pair key: [(property_identifier) (string) (number) (computed_property_name)] @name
  value: [(arrow_function) (function_expression) (generator_function)] @value) @function
(class_declaration name: (type_identifier) @name) @class
(abstract_class_declaration name: (type_identifier) @name) @class
(lexical_declaration (variable_declarator name: (identifier) @name value: (class) @value)) @class
(variable_declaration (variable_declarator name: (identifier) @name value: (class) @value)) @class
(pair key: [(property_identifier) (string) (number) (computed_property_name)] @name value: (class) @value) @class
(public_field_definition name: (_) @name value: (class) @value) @class
(export_statement "default" value: (class) @value @name) @class
(interface_declaration name: (type_identifier) @name) @interface
(type_alias_declaration name: (type_identifier) @name) @type
(enum_declaration name: (identifier) @name) @type
(method_definition name: (_) @name) @method
(class_body (method_signature name: (_) @name) @method)
(abstract_method_signature name: (_) @name) @method
(interface_body (method_signature name: (_) @member))
(public_field_definition name: (_) @name value: [(arrow_function) (function_expression)] @value) @method
(internal_module name: [(identifier) (nested_identifier)] @name) @scope
(module name: [(identifier) (nested_identifier)] @name) @scope

(export_statement "default" value: [(arrow_function) (function_expression) (generator_function)] @value @name) @function

; Parameters and bases
(formal_parameters [
  (required_parameter pattern: (identifier) @parameter)
  (required_parameter pattern: (this) @parameter)
  (optional_parameter pattern: (identifier) @parameter)
  (required_parameter pattern: (rest_pattern (identifier) @parameter))
  (required_parameter pattern: (array_pattern (identifier) @parameter))
  (_ pattern: (object_pattern [
    (shorthand_property_identifier_pattern) @parameter
    (object_assignment_pattern left: (shorthand_property_identifier_pattern) @parameter)
    (pair_pattern value: (identifier) @parameter)
    (rest_pattern (identifier) @parameter)]))
]) @parameters
(arrow_function parameter: (identifier) @parameter @parameters)
(extends_clause value: (_) @base)
(extends_type_clause type: (_) @base)
(implements_clause (_) @base)
(decorator (_) @decorator)

; Behaviour
[(arrow_function) (function_expression) (generator_function) (class)] @anonymous
(call_expression function: [(identifier) (member_expression)] @call)
(new_expression constructor: (_) @call)
(throw_statement (new_expression constructor: [(identifier) (member_expression)] @raise))
(return_statement (_) @return)
(yield_expression) @yield
[
  (if_statement) (for_statement) (for_in_statement) (while_statement) (do_statement) (switch_case) (catch_clause)
  (ternary_expression)
] @branch
(binary_expression operator: ["&&" "||" "??"]) @branch
(if_statement
  condition: (parenthesized_expression (_) @guard)
  consequence: [
    (statement_block . [(throw_statement) (return_statement)] @outcome .)
    [(throw_statement) (return_statement)] @outcome
  ]
  !alternative)

; The file
(import_statement (import_clause (identifier) @imported) source: (string (string_fragment) @module))
(import_statement (import_clause (namespace_import (identifier) @imported)) source: (string (string_fragment) @module))
(import_statement (import_clause (named_imports (import_specifier name: (_) @imported @original !alias)))
  source: (string (string_fragment) @module))
(import_statement (import_clause (named_imports (import_specifier name: (_) @original alias: (identifier) @imported)))
  source: (string (string_fragment) @module))
(import_statement . source: (string (string_fragment) @module))
(program (lexical_declaration "const" (variable_declarator name: (identifier) @constant)))
(program (export_statement (lexical_declaration "const" (variable_declarator name: (identifier) @constant))))
[(string_fragment) (comment) (regex_pattern)] @opaque
