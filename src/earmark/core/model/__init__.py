"""The nouns: frozen structs of units, grants, claims, requests and machines."""
