"""What is shown with a question: a lexical index, embedders, the symbol graph, fused."""
