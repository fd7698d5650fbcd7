"""Steps that make a table from what was downloaded: names of files, several CSVs, other formats."""
