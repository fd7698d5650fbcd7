"""Runs beside each other: the ledger of a folder of runs, and paired comparisons on the same rows."""
