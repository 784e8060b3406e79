"""Where events rest."""
