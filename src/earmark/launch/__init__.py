"""A grant made usable: formats for launchers, and a confined child."""
