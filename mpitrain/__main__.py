"""`python -m mpitrain` is the command `mpitrain`."""

from mpitrain.commands.cli import main

main()
