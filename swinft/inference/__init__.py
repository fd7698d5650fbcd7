"""Networks and rows become predictions; nothing here knows a run's folder."""
