"""Children on the nodes of a Ray cluster: the same processes as on this machine, started there."""
