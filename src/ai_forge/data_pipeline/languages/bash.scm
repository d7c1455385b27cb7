; Units
(function_definition name: (word) @name) @function

; Behaviour
(command name: (command_name (word) @call))
[(if_statement) (elif_clause) (for_statement) (c_style_for_statement) (while_statement) (case_item)] @branch
(list ["&&" "||"]) @branch

; The file
(command name: (command_name (word) @_source) argument: (word) @module (#any-of? @_source "source" "."))
(program (variable_assignment name: (variable_name) @constant))
(program (declaration_command (variable_assignment name: (variable_name) @constant)))
[(string_content) (raw_string) (comment) (heredoc_body)] @opaque
