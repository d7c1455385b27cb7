; Units
(function_declaration (user_type (identifier) @receiver .) . "." . name: (identifier) @name
  (function_value_parameters) @own_parameters) @function
(function_declaration name: (identifier) @name (function_value_parameters) @own_parameters) @function
(secondary_constructor "constructor" @name (function_value_parameters) @own_parameters) @method
(class_declaration "interface" name: (identifier) @name) @interface
(class_declaration name: (identifier) @name) @class
(object_declaration name: (identifier) @name) @class
(type_alias type: (identifier) @name) @type
(companion_object !name) @impl
(companion_object name: (identifier) @name) @impl
(property_declaration (variable_declaration (identifier) @name) [(lambda_literal) (anonymous_function)] @value) @function

; Parameters and bases
(function_value_parameters (parameter . (identifier) @parameter)) @parameters
(lambda_parameters (variable_declaration (identifier) @parameter)) @parameters
(delegation_specifier (user_type) @base)
(delegation_specifier (constructor_invocation (user_type) @base))
(delegation_specifier (explicit_delegation . (user_type) @base))
(annotation [(user_type) (constructor_invocation)] @decorator)

; Behaviour
[(lambda_literal) (anonymous_function) (object_literal)] @anonymous
(call_expression . [(identifier) (navigation_expression)] @call)
(throw_expression (call_expression . [(identifier) (navigation_expression)] @raise))
(return_expression (_) @return)
[(if_expression) (for_statement) (while_statement) (do_while_statement) (when_entry) (catch_block)] @branch
(binary_expression operator: ["&&" "||" "?:"]) @branch
(if_expression condition: (_) @guard . ")" . [
  (block . [(throw_expression) (return_expression)] @outcome .)
  [(throw_expression) (return_expression)] @outcome] .)

; The file
(import (qualified_identifier (identifier) @imported .) @module .)
(import (qualified_identifier) @module "as" (identifier) @imported)
(source_file (property_declaration (modifiers) @_modifiers (variable_declaration (identifier) @constant))
  (#match? @_modifiers "const"))
[(string_content) (line_comment) (block_comment) (character_literal)] @opaque
