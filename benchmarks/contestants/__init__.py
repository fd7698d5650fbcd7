"""One file per contestant of fit.py: what a user of that project writes. Each imports its own project only."""
