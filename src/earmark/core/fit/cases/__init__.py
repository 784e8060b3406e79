"""Cases of a bulk what-if: read, searched and answered."""
