; Units
(function_declaration name: (identifier) @name) @function
(method_declaration
  receiver: (parameter_list (parameter_declaration type: [
    (type_identifier) @receiver
    (pointer_type (type_identifier) @receiver)
    (generic_type type: (type_identifier) @receiver)
    (pointer_type (generic_type type: (type_identifier) @receiver))]))
  name: (field_identifier) @name) @method
((type_declaration (type_spec name: (type_identifier) @name type: (struct_type)) @value) @class
  (#not-match? @class "^type\\s*[(]"))
((type_declaration (type_spec name: (type_identifier) @name type: (interface_type)) @value) @interface
  (#not-match? @interface "^type\\s*[(]"))
((type_declaration [(type_spec name: (type_identifier) @name) (type_alias name: (type_identifier) @name)] @value) @type
  (#not-match? @type "^type\\s*[(]"))
(type_declaration "(" (type_spec name: (type_identifier) @name type: (struct_type)) @class)
(type_declaration "(" (type_spec name: (type_identifier) @name type: (interface_type)) @interface)
(type_declaration "(" [(type_spec name: (type_identifier) @name) (type_alias name: (type_identifier) @name)] @type)
(var_declaration (var_spec . name: (identifier) @name value: (expression_list . (func_literal) @value .))) @function
(var_declaration (var_spec_list (var_spec . name: (identifier) @name
  value: (expression_list . (func_literal) @value .)) @function))
(short_var_declaration left: (expression_list . (identifier) @name .)
  right: (expression_list . (func_literal) @value .)) @function
(assignment_statement left: (expression_list . [(identifier) (selector_expression)] @name .)
  right: (expression_list . (func_literal) @value .)) @function
(keyed_element . (literal_element (identifier) @name) . (literal_element (func_literal) @value) .) @function
(method_elem name: (field_identifier) @member)

; Parameters and bases
(parameter_list [
  (parameter_declaration name: (identifier) @parameter)
  (variadic_parameter_declaration name: (identifier) @parameter)
]) @parameters
(struct_type (field_declaration_list (field_declaration !name type: (_) @base)))
(interface_type (type_elem (type_identifier) @base))

; Behaviour
(func_literal) @anonymous
(call_expression function: [(identifier) (selector_expression)] @call)
(return_statement (_) @return)
[(if_statement) (for_statement) (expression_case) (type_case) (communication_case)] @branch
(binary_expression operator: ["&&" "||"]) @branch
(if_statement
  condition: (_) @guard
  consequence: (block (statement_list . (return_statement) @outcome .))
  !alternative)

; The file
(import_spec path: (interpreted_string_literal (interpreted_string_literal_content) @module @imported) !name)
(import_spec name: (package_identifier) @imported path: (interpreted_string_literal (interpreted_string_literal_content) @module))
(source_file (const_declaration (const_spec name: (identifier) @constant)))
[(interpreted_string_literal_content) (raw_string_literal_content) (comment)] @opaque
