"""What every room may use: settings, errors, words for people, the log and checkpoints."""
