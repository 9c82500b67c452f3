"""Examples: each `*.py` is a program of its own; `python -m examples.demo` is what `make demo` runs."""
