"""The commands: arguments in, prints out."""
