"""One file per library that fit.py compares: the script that its user would write. Each imports only this library."""
