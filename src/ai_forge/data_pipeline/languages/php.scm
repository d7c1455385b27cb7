; Units
(function_definition name: (name) @name) @function
(method_declaration name: (name) @name) @method
(class_declaration name: (name) @name) @class
(trait_declaration name: (name) @name) @class
(interface_declaration name: (name) @name) @interface
(enum_declaration name: (name) @name) @type
(expression_statement (assignment_expression left: [(variable_name) (member_access_expression)] @name
  right: [(anonymous_function) (arrow_function)] @value)) @function
(array_element_initializer . (string (string_content) @name) [(anonymous_function) (arrow_function)] @value) @function

; Parameters and bases
(formal_parameters [
  (simple_parameter name: (variable_name (name) @parameter))
  (variadic_parameter name: (variable_name (name) @parameter))
  (property_promotion_parameter name: (variable_name (name) @parameter))
]) @parameters
(base_clause (_) @base)
(class_interface_clause (_) @base)
(attribute_group (attribute) @decorator)

; Behaviour
[(anonymous_function) (arrow_function) (anonymous_class)] @anonymous
(function_call_expression function: [(name) (qualified_name) (variable_name)] @call)
(member_call_expression object: (_) @_object name: (name) @call @called)
(nullsafe_member_call_expression object: (_) @_object name: (name) @call @called)
(scoped_call_expression scope: (_) @_object name: (name) @call @called)
(object_creation_expression [(name) (qualified_name)] @call)
(throw_expression (object_creation_expression [(name) (qualified_name)] @raise))
(return_statement (_) @return)
(yield_expression) @yield
[
  (if_statement) (else_if_clause) (for_statement) (foreach_statement) (while_statement) (do_statement) (case_statement)
  (catch_clause) (conditional_expression) (match_conditional_expression)
] @branch
(binary_expression operator: ["&&" "||" "??" "and" "or"]) @branch
(if_statement
  condition: (parenthesized_expression (_) @guard)
  body: [
    (compound_statement . [(return_statement) (expression_statement (throw_expression))] @outcome .)
    [(return_statement) (expression_statement (throw_expression))] @outcome
  ]
  !alternative)

; The file
(namespace_use_clause (qualified_name (name) @imported @original .) @module !alias)
(namespace_use_clause (qualified_name (name) @original .) @module alias: (name) @imported)
(namespace_use_clause . (name) @imported @module !alias)
[(require_once_expression (string (string_content) @module)) (require_expression (string (string_content) @module))
 (include_expression (string (string_content) @module))]
(program (const_declaration (const_element (name) @constant)))
(class_declaration body: (declaration_list (const_declaration (const_element (name) @constant))))
[(string_content) (comment) (heredoc_body) (nowdoc_body) (text)] @opaque
