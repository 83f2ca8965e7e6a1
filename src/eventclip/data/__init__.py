"""What to learn from: recordings, few-shot draws, views, data modules."""
