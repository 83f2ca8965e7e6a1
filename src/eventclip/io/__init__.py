"""Reading recordings: files of any format become events in order of time, or one sentence that says what is wrong."""
