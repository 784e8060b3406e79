"""Guest cells, devices and networks onto a node, all at once: the exact search, and what it stands on."""
