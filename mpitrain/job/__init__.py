"""What every room may use: settings, errors, the display, the log and checkpoints."""
