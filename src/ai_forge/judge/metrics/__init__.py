"""The named metrics, one a file; `judge.evaluator` exports the public ones.

| file | says |
| --- | --- |
| `codebleu`, `data_flow` | how like a reference a code is |

A metric is a function from what is measured to a number or a frozen value. What could not be measured is None.
"""
