"""The two towers as the paper writes them, and the tokenizer of the text tower."""
