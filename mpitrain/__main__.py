"""`python -m mpitrain` is the command `mpitrain`."""

from mpitrain.cli import main

main()
