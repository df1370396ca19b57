"""The command line."""

from mpitrain.commands.cli.declared import COMPLETE as COMPLETE
from mpitrain.commands.cli.declared import commands as commands
from mpitrain.commands.cli.declared import main as main
from mpitrain.commands.cli.declared import train as train
