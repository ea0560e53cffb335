"""Commands, one file per group; each has `register`, which adds them to the application."""
