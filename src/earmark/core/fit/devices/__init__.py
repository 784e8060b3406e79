"""The devices of a machine and of a request: what may be handed out, what matches, and which ones are chosen."""
