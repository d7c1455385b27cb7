; Units
(class_declaration name: (identifier) @name) @class
(record_declaration name: (identifier) @name) @class
(enum_declaration name: (identifier) @name) @class
(interface_declaration name: (identifier) @name) @interface
(annotation_type_declaration name: (identifier) @name) @interface
(method_declaration name: (identifier) @name) @method
(constructor_declaration name: (identifier) @name) @method
(annotation_type_element_declaration name: (identifier) @name) @method
(constant_declaration declarator: (variable_declarator name: (identifier) @name value: (lambda_expression) @value)) @function
(compact_constructor_declaration name: (identifier) @name) @method
(local_variable_declaration declarator: (variable_declarator name: (identifier) @name value: (lambda_expression) @value)) @function
(field_declaration declarator: (variable_declarator name: (identifier) @name value: (lambda_expression) @value)) @function

; Parameters and bases
(formal_parameters [
  (formal_parameter name: (identifier) @parameter)
  (spread_parameter (variable_declarator name: (identifier) @parameter))
]) @parameters
(inferred_parameters (identifier) @parameter) @parameters
(lambda_expression parameters: (identifier) @parameter @parameters)
(superclass (_) @base)
(super_interfaces (type_list (_) @base))
(extends_interfaces (type_list (_) @base))
[(marker_annotation) (annotation)] @decorator

; Behaviour
[(lambda_expression) (object_creation_expression (class_body))] @anonymous
(method_invocation !object name: (identifier) @call)
(method_invocation object: (_) @_object name: (identifier) @call @called)
(object_creation_expression type: (_) @call)
(throw_statement (object_creation_expression type: (_) @raise))
(return_statement (_) @return)
[
  (if_statement) (for_statement) (enhanced_for_statement) (while_statement) (do_statement) (switch_label)
  (catch_clause) (ternary_expression)
] @branch
(binary_expression operator: ["&&" "||"]) @branch
(if_statement
  condition: (parenthesized_expression (_) @guard)
  consequence: [
    (block . [(throw_statement) (return_statement)] @outcome .)
    [(throw_statement) (return_statement)] @outcome
  ]
  !alternative)

; The file
(import_declaration (scoped_identifier name: (identifier) @imported) @module)
(field_declaration (modifiers) @_modifiers declarator: (variable_declarator name: (identifier) @constant)
  (#match? @_modifiers "static.*final|final.*static"))
[(string_fragment) (line_comment) (block_comment)] @opaque
