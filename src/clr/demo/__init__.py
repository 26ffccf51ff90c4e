"""The training demonstration behind ``clr demo``: real handwritten digits, under a fixed rate and under each policy."""
