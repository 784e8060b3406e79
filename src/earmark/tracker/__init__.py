"""The spine: read, decide, append, answer."""
