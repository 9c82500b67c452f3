"""`python -m zkrecipes.cli`, the same as `zkrecipes`."""

from zkrecipes.cli import main

main()
