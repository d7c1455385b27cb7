; Units
(method name: (_) @name) @function
(singleton_method name: (_) @name) @function
(class name: (_) @name) @class
(module name: (_) @name) @mixin
(singleton_class) @impl
(assignment left: (constant) @name
  right: (call receiver: (constant) @_maker method: (identifier) @_new block: (_)) @value
  (#any-of? @_maker "Struct" "Class" "Module" "Data") (#any-of? @_new "new" "define")) @class
(assignment left: [(identifier) (constant)] @name right: (lambda) @value) @function
(assignment left: [(identifier) (constant)] @name
  right: (call !receiver method: (identifier) @_maker block: (_)) @value (#any-of? @_maker "lambda" "proc")) @function
(call !receiver method: (identifier) @_define arguments: (argument_list . (simple_symbol) @name .) block: (_)
  (#any-of? @_define "define_method" "define_singleton_method")) @function

; Parameters and bases
(method_parameters [
  (identifier) @parameter
  (optional_parameter name: (identifier) @parameter)
  (keyword_parameter name: (identifier) @parameter)
  (splat_parameter name: (identifier) @parameter)
  (hash_splat_parameter name: (identifier) @parameter)
  (block_parameter name: (identifier) @parameter)
]) @parameters
(lambda_parameters [
  (identifier) @parameter
  (optional_parameter name: (identifier) @parameter)
  (keyword_parameter name: (identifier) @parameter)
]) @parameters
(superclass (_) @base)
(class body: (body_statement (call !receiver method: (identifier) @_include arguments: (argument_list (_) @base)))
  (#any-of? @_include "include" "prepend"))

; Behaviour
[(block) (do_block) (lambda)] @anonymous
(call !receiver method: (identifier) @call)
(call receiver: (_) @_object method: [(identifier) (constant)] @call @called)
(call !receiver method: (identifier) @_raise arguments: (argument_list . [(constant) (scope_resolution)] @raise)
  (#any-of? @_raise "raise" "fail"))
(call !receiver method: (identifier) @_raise
  arguments: (argument_list . (call receiver: [(constant) (scope_resolution)] @raise))
  (#any-of? @_raise "raise" "fail"))
(return (argument_list (_) @return))
(yield) @yield
[
  (if) (unless) (elsif) (if_modifier) (unless_modifier) (while) (until) (while_modifier) (until_modifier) (for) (when)
  (in_clause) (rescue) (conditional)
] @branch
(binary operator: ["&&" "||" "and" "or"]) @branch
(if_modifier body: [(return) (call !receiver method: (identifier) @_raise)] @outcome condition: (_) @guard
  (#any-of? @_raise "raise" "fail"))
(if condition: (_) @guard consequence: (then . [(return) (call !receiver method: (identifier) @_raise)] @outcome .)
  !alternative
  (#any-of? @_raise "raise" "fail"))

; The file
(call !receiver method: (identifier) @_require arguments: (argument_list . (string (string_content) @module) .)
  (#any-of? @_require "require" "require_relative" "load"))
(assignment left: (constant) @constant)
[(string_content) (comment) (heredoc_content)] @opaque
