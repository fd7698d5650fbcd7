"""A run as one HTML page, and the table of its largest errors."""
