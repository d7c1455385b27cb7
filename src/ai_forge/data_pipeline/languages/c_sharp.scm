; Units
(class_declaration name: (identifier) @name) @class
(struct_declaration name: (identifier) @name) @class
(record_declaration name: (identifier) @name) @class
(interface_declaration name: (identifier) @name) @interface
(enum_declaration name: (identifier) @name) @type
(delegate_declaration name: (identifier) @name) @type
(method_declaration name: (identifier) @name) @method
(constructor_declaration name: (identifier) @name) @method
(destructor_declaration name: (identifier) @name) @method
(operator_declaration operator: _ @name) @method
(conversion_operator_declaration type: (_) @name) @method
(property_declaration name: (identifier) @name accessors: (accessor_list (accessor_declaration body: (_)))) @method
(property_declaration name: (identifier) @name value: (arrow_expression_clause)) @method
(local_function_statement name: (identifier) @name) @function
(local_declaration_statement (variable_declaration (variable_declarator name: (identifier) @name
  [(lambda_expression) (anonymous_method_expression)] @value))) @function
(field_declaration (variable_declaration (variable_declarator name: (identifier) @name
  [(lambda_expression) (anonymous_method_expression)] @value))) @function

; Parameters and bases
(parameter_list (parameter name: (identifier) @parameter)) @parameters
(parameter_list name: (identifier) @parameter) @parameters
(base_list [(identifier) (qualified_name) (generic_name)] @base)
(attribute_list (attribute) @decorator)

; Behaviour
[(lambda_expression) (anonymous_method_expression)] @anonymous
(invocation_expression function: [(identifier) (member_access_expression)] @call)
(invocation_expression function: (generic_name (identifier) @call))
(object_creation_expression type: (_) @call)
(throw_statement (object_creation_expression type: (_) @raise))
(throw_expression (object_creation_expression type: (_) @raise))
(return_statement (_) @return)
(yield_statement) @yield
[
  (if_statement) (for_statement) (foreach_statement) (while_statement) (do_statement) (switch_section)
  (switch_expression_arm) (catch_clause) (conditional_expression)
] @branch
(binary_expression operator: ["&&" "||" "??"]) @branch
(if_statement
  condition: (_) @guard
  consequence: [
    (block . [(throw_statement) (return_statement)] @outcome .)
    [(throw_statement) (return_statement)] @outcome
  ]
  !alternative)

; The file
(using_directive !name [(identifier) (qualified_name)] @module)
(using_directive name: (identifier) @imported [(identifier) (qualified_name) (generic_name)] @module .)
(field_declaration (modifier) @_const (variable_declaration (variable_declarator name: (identifier) @constant))
  (#eq? @_const "const"))
[(string_literal_content) (raw_string_content) (verbatim_string_literal) (character_literal) (comment)] @opaque
