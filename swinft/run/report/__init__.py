"""A run's report as one HTML page, and the table of its largest errors."""
