"""The machine: memory, cores, devices, precision, child processes."""
