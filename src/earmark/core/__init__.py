"""The pure heart: values in, values out; no clock, disk, network, randomness, environment, logging or threads."""
