; Units
(function_definition declarator: [
  (function_declarator declarator: (identifier) @name parameters: (_) @own_parameters)
  (function_declarator declarator: (parenthesized_declarator (identifier) @name) parameters: (_) @own_parameters)
  (pointer_declarator declarator: (function_declarator declarator: (identifier) @name parameters: (_) @own_parameters))
  (pointer_declarator declarator: (pointer_declarator declarator:
    (function_declarator declarator: (identifier) @name parameters: (_) @own_parameters)))
]) @function
(preproc_function_def name: (identifier) @name) @function
(type_definition type: [(struct_specifier body: (_)) (union_specifier body: (_))]
  declarator: (type_identifier) @name) @class
(type_definition type: (enum_specifier body: (_)) declarator: (type_identifier) @name) @type
(type_definition declarator: [
  (type_identifier) @name
  (pointer_declarator declarator: (type_identifier) @name)
  (function_declarator declarator: (type_identifier) @name)
  (function_declarator declarator: (parenthesized_declarator (pointer_declarator declarator: (type_identifier) @name)))
]) @type
(struct_specifier name: (type_identifier) @name body: (_)) @class
(union_specifier name: (type_identifier) @name body: (_)) @class
(enum_specifier name: (type_identifier) @name body: (_)) @type

; Parameters and bases
(parameter_list (parameter_declaration declarator: [
  (identifier) @parameter
  (pointer_declarator declarator: (identifier) @parameter)
  (pointer_declarator declarator: (pointer_declarator declarator: (identifier) @parameter))
  (array_declarator declarator: (identifier) @parameter)
  (function_declarator declarator: (parenthesized_declarator (pointer_declarator declarator: (identifier) @parameter)))
])) @parameters
(preproc_params (identifier) @parameter) @parameters

; Behaviour
(call_expression function: [(identifier) (field_expression)] @call)
(return_statement (_) @return)
[(if_statement) (for_statement) (while_statement) (do_statement) (case_statement) (conditional_expression)] @branch
(binary_expression operator: ["&&" "||"]) @branch
(if_statement
  condition: (parenthesized_expression (_) @guard)
  consequence: [(compound_statement . (return_statement) @outcome .) (return_statement) @outcome]
  !alternative)

; The file
(preproc_include path: [(system_lib_string) @module (string_literal (string_content) @module)])
(translation_unit (preproc_def name: (identifier) @constant))
(translation_unit (preproc_ifdef (preproc_def name: (identifier) @constant)))
(translation_unit (declaration (type_qualifier) @_const declarator: (init_declarator declarator: (identifier) @constant))
  (#eq? @_const "const"))
[(string_content) (char_literal) (comment) (system_lib_string)] @opaque
