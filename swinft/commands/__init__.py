"""The commands: parse arguments, call `swinft.run`, print."""
