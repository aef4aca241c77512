"""`fuseline doctor`: looks at everything that a process of ours needs, and says what to do about what it finds."""
