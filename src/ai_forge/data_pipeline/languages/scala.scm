; Units
(function_definition name: (_) @name (parameters) @own_parameters) @function
(function_declaration name: (_) @name (parameters) @own_parameters) @function
(function_definition name: (_) @name) @function
(function_declaration name: (_) @name) @function
(class_definition name: (_) @name) @class
(object_definition name: (_) @name) @class
(trait_definition name: (_) @name) @interface
(enum_definition name: (_) @name) @type
(type_definition name: (_) @name) @type
(given_definition name: (_) @name) @class
(val_definition pattern: (identifier) @name value: (lambda_expression) @value) @function
(package_object name: (_) @name) @scope
(extension_definition) @impl

; Parameters and bases
(parameters (parameter name: (identifier) @parameter)) @parameters
(bindings (binding name: (identifier) @parameter)) @parameters
(extends_clause [(type_identifier) (generic_type) (stable_type_identifier)] @base)
(annotation) @decorator

; Behaviour
[(lambda_expression)] @anonymous
(call_expression function: [(identifier) (field_expression)] @call)
(call_expression function: (generic_function function: [(identifier) (field_expression)] @call))
(instance_expression . [(type_identifier) (generic_type type: (type_identifier)) (stable_type_identifier)] @call)
(throw_expression (instance_expression . [(type_identifier) (stable_type_identifier)] @raise))
(return_expression (_) @return)
[(if_expression) (for_expression) (while_expression) (do_while_expression) (case_clause)] @branch
(infix_expression operator: (operator_identifier) @_operator (#any-of? @_operator "&&" "||")) @branch
(if_expression
  condition: (parenthesized_expression (_) @guard)
  consequence: [
    (block . [(throw_expression) (return_expression)] @outcome .)
    [(throw_expression) (return_expression)] @outcome
  ]
  !alternative)

; The file
(import_declaration (identifier) @imported .) @module
(import_declaration (namespace_selectors (identifier) @imported @original)) @module
(import_declaration (namespace_selectors (arrow_renamed_identifier name: (identifier) @original alias: (identifier) @imported))) @module
(import_declaration (namespace_wildcard)) @module
(template_body (val_definition pattern: (identifier) @constant))
(compilation_unit (val_definition pattern: (identifier) @constant))
[(string) (comment) (block_comment) (character_literal)] @opaque
