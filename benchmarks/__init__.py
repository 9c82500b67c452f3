"""Benchmarks: our recipes, kazoo's and Curator's for the same job, against one server. Run `python -m benchmarks`."""
