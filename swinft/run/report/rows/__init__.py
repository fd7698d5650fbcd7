"""What the report computes about rows: uncertainty, label quality, neighbours, duplicates, views, drift."""
