"""The scenario language: a sequence of operations in the trade's own notation, carried out on a tracker, with the figures after each step."""
