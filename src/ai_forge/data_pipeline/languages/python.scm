; Units
(function_definition name: (identifier) @name) @function
(class_definition name: (identifier) @name) @class
(expression_statement (assignment left: (identifier) @name right: (lambda) @value)) @function
(expression_statement (assignment left: (identifier) @name
  right: (parenthesized_expression . (lambda) @value .))) @function

; Parameters and bases
(parameters [
  (identifier) @parameter
  (default_parameter name: (identifier) @parameter)
  (typed_default_parameter name: (identifier) @parameter)
  (typed_parameter . (identifier) @parameter)
  (typed_parameter . [(list_splat_pattern (identifier) @parameter) (dictionary_splat_pattern (identifier) @parameter)])
  (list_splat_pattern (identifier) @parameter)
  (dictionary_splat_pattern (identifier) @parameter)
]) @parameters
(lambda_parameters [
  (identifier) @parameter
  (default_parameter name: (identifier) @parameter)
  (list_splat_pattern (identifier) @parameter)
  (dictionary_splat_pattern (identifier) @parameter)
]) @parameters
(class_definition superclasses: (argument_list [(identifier) (attribute) (subscript)] @base))
(decorator (_) @decorator)

; Behaviour
(lambda) @anonymous
(call function: [(identifier) (attribute)] @call)
(raise_statement . [(identifier) (attribute)] @raise)
(raise_statement . (call function: [(identifier) (attribute)] @raise))
(return_statement (_) @return)
(yield) @yield
[
  (if_statement) (elif_clause) (for_statement) (while_statement) (except_clause) (case_clause)
  (conditional_expression) (boolean_operator) (for_in_clause) (if_clause) (assert_statement)
] @branch
(if_statement
  condition: (_) @guard
  consequence: (block . [(raise_statement) (return_statement)] @outcome .)
  !alternative)

; The file
(import_statement name: (dotted_name . (identifier) @imported) @module)
(import_statement name: (aliased_import name: (dotted_name) @module alias: (identifier) @imported))
(import_from_statement module_name: (_) @module name: (dotted_name) @imported @original)
(import_from_statement module_name: (_) @module
  name: (aliased_import name: (dotted_name) @original alias: (identifier) @imported))
(import_from_statement module_name: (_) @module (wildcard_import))
(module (expression_statement (assignment left: (identifier) @constant)))
[(string_content) (comment)] @opaque
