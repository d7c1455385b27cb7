; Units
(function_definition declarator: [
  (function_declarator declarator: (_) @name parameters: (_) @own_parameters)
  (pointer_declarator declarator: (function_declarator declarator: (_) @name parameters: (_) @own_parameters))
  (pointer_declarator declarator: (pointer_declarator declarator:
    (function_declarator declarator: (_) @name parameters: (_) @own_parameters)))
  (reference_declarator (function_declarator declarator: (_) @name parameters: (_) @own_parameters))
  (pointer_declarator declarator: (reference_declarator
    (function_declarator declarator: (_) @name parameters: (_) @own_parameters)))
]) @function
(function_definition declarator: (operator_cast) @name) @function
(preproc_function_def name: (identifier) @name) @function
(class_specifier name: (_) @name body: (_)) @class
(struct_specifier name: (_) @name body: (_)) @class
(union_specifier name: (_) @name body: (_)) @class
(enum_specifier name: (_) @name body: (_)) @type
(type_definition type: [(struct_specifier body: (_)) (union_specifier body: (_))]
  declarator: (type_identifier) @name) @class
(type_definition declarator: [
  (type_identifier) @name
  (pointer_declarator declarator: (type_identifier) @name)
  (function_declarator declarator: (parenthesized_declarator (pointer_declarator declarator: (type_identifier) @name)))
]) @type
(alias_declaration name: (type_identifier) @name) @type
(concept_definition name: (identifier) @name) @type
(declaration declarator: (init_declarator declarator: (identifier) @name value: (lambda_expression) @value)) @function
(namespace_definition name: (_) @name) @scope

; Parameters and bases
(parameter_list [
  (parameter_declaration declarator: [
    (identifier) @parameter
    (pointer_declarator declarator: (identifier) @parameter)
    (pointer_declarator declarator: (pointer_declarator declarator: (identifier) @parameter))
    (reference_declarator (identifier) @parameter)
    (array_declarator declarator: (identifier) @parameter)
    (function_declarator declarator: (parenthesized_declarator (pointer_declarator declarator: (identifier) @parameter)))])
  (optional_parameter_declaration declarator: [
    (identifier) @parameter
    (pointer_declarator declarator: (identifier) @parameter)
    (reference_declarator (identifier) @parameter)])
  (variadic_parameter_declaration declarator: [
    (variadic_declarator (identifier) @parameter)
    (reference_declarator (variadic_declarator (identifier) @parameter))])
]) @parameters
(preproc_params (identifier) @parameter) @parameters
(base_class_clause [(type_identifier) (qualified_identifier) (template_type)] @base)
(field_declaration declarator: [
  (function_declarator declarator: (field_identifier) @member)
  (pointer_declarator declarator: (function_declarator declarator: (field_identifier) @member))
  (pointer_declarator declarator: (pointer_declarator declarator:
    (function_declarator declarator: (field_identifier) @member)))
  (reference_declarator (function_declarator declarator: (field_identifier) @member))
])

; Behaviour
(lambda_expression) @anonymous
(call_expression function: [(identifier) (field_expression) (qualified_identifier)] @call)
(call_expression function: (template_function name: (identifier) @call))
(new_expression type: (_) @call)
(throw_statement (call_expression function: [(identifier) (qualified_identifier)] @raise))
(return_statement (_) @return)
[(co_yield_statement)] @yield
[
  (if_statement) (for_statement) (for_range_loop) (while_statement) (do_statement) (case_statement) (catch_clause)
  (conditional_expression)
] @branch
(binary_expression operator: ["&&" "||" "and" "or"]) @branch
(if_statement
  condition: (condition_clause value: (_) @guard)
  consequence: [
    (compound_statement . [(throw_statement) (return_statement)] @outcome .)
    [(throw_statement) (return_statement)] @outcome
  ]
  !alternative)

; The file
(preproc_include path: [(system_lib_string) @module (string_literal (string_content) @module)])
(using_declaration (qualified_identifier scope: (_) @module name: (identifier) @imported @original))
(translation_unit (preproc_def name: (identifier) @constant))
(translation_unit (declaration (type_qualifier) @_const declarator: (init_declarator declarator: (identifier) @constant))
  (#any-of? @_const "const" "constexpr"))
(namespace_definition body: (declaration_list (declaration (type_qualifier) @_const
  declarator: (init_declarator declarator: (identifier) @constant)))
  (#any-of? @_const "const" "constexpr"))
[(string_content) (raw_string_content) (char_literal) (comment) (system_lib_string)] @opaque
