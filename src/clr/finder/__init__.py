"""Everything around the LR range test: the sweep, its curve, its result, and advice."""
