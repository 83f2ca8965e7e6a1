"""The sensor's world: events as numpy arrays, their files, their frames. No torch below this line."""
