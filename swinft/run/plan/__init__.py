"""The cost of a run before it starts: time, memory and GPU hours, from measured steps or for GPUs that are not here."""
