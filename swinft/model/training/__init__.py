"""What a training step does besides the network: optimiser, schedule, averaging, mixing, loss scaling."""
