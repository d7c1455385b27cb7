; Units
(function_declaration name: (identifier) @name) @function
(generator_function_declaration name: (identifier) @name) @function
(lexical_declaration (variable_declarator name: (identifier) @name
  value: [(arrow_function) (function_expression) (generator_function)] @value)) @function
(variable_declaration (variable_declarator name: (identifier) @name
  value: [(arrow_function) (function_expression) (generator_function)] @value)) @function
(expression_statement (assignment_expression left: [(identifier) (member_expression)] @name
  right: [(arrow_function) (function_expression) (generator_function)] @value)) @function
(expression_statement (assignment_expression left: (member_expression)
  right: (assignment_expression left: [(identifier) (member_expression)] @name
    right: [(arrow_function) (function_expression) (generator_function)] @value))) @function
(pair key: [(property_identifier) (string) (number) (computed_property_name)] @name
  value: [(arrow_function) (function_expression) (generator_function)] @value) @function
(class_declaration name: (identifier) @name) @class
(lexical_declaration (variable_declarator name: (identifier) @name value: (class) @value)) @class
(variable_declaration (variable_declarator name: (identifier) @name value: (class) @value)) @class
(pair key: [(property_identifier) (string) (number) (computed_property_name)] @name value: (class) @value) @class
(field_definition property: (_) @name value: (class) @value) @class
(export_statement "default" value: (class) @value @name) @class
(expression_statement (assignment_expression left: (_) @name right: (class) @value)) @class
(expression_statement (assignment_expression left: (member_expression)
  right: (assignment_expression left: [(identifier) (member_expression)] @name right: (class) @value))) @class
(method_definition name: (_) @name) @method
(field_definition property: (_) @name value: [(arrow_function) (function_expression)] @value) @method

(export_statement "default" value: [(arrow_function) (function_expression) (generator_function)] @value @name) @function

; Parameters and bases
(formal_parameters [
  (identifier) @parameter
  (assignment_pattern left: (identifier) @parameter)
  (rest_pattern (identifier) @parameter)
  (object_pattern [
    (shorthand_property_identifier_pattern) @parameter
    (object_assignment_pattern left: (shorthand_property_identifier_pattern) @parameter)
    (pair_pattern value: (identifier) @parameter)
    (rest_pattern (identifier) @parameter)])
  (assignment_pattern left: (object_pattern [
    (shorthand_property_identifier_pattern) @parameter
    (object_assignment_pattern left: (shorthand_property_identifier_pattern) @parameter)]))
  (array_pattern (identifier) @parameter)
]) @parameters
(arrow_function parameter: (identifier) @parameter @parameters)
(class_heritage (_) @base)
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
(variable_declarator name: (identifier) @imported
  value: (call_expression function: (identifier) @_require arguments: (arguments (string (string_fragment) @module)))
  (#eq? @_require "require"))
(variable_declarator name: (identifier) @imported
  value: (member_expression
    object: (call_expression function: (identifier) @_require arguments: (arguments (string (string_fragment) @module)))
    property: (property_identifier) @original)
  (#eq? @_require "require"))
(variable_declarator
  name: (object_pattern (shorthand_property_identifier_pattern) @imported @original)
  value: (call_expression function: (identifier) @_require arguments: (arguments (string (string_fragment) @module)))
  (#eq? @_require "require"))
(variable_declarator
  name: (object_pattern (pair_pattern key: (property_identifier) @original value: (identifier) @imported))
  value: (call_expression function: (identifier) @_require arguments: (arguments (string (string_fragment) @module)))
  (#eq? @_require "require"))
(program (lexical_declaration "const" (variable_declarator name: (identifier) @constant)))
(program (export_statement (lexical_declaration "const" (variable_declarator name: (identifier) @constant))))
[(string_fragment) (comment) (regex_pattern)] @opaque
