"""Does it fit, where exactly, or why not."""
