"""The language of flavors: extra specs and image properties, in Nova's words, made into a Request. Values in, values out."""
