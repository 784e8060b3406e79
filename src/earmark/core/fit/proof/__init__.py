"""Second opinions: refusals, certificates and prescribed grants, checked by other means than those that made them."""
