"""CSV files become checked tables of text cells."""
