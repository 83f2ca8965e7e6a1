"""Results of many runs as tables and curves."""
