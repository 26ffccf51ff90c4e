"""The LR range test: the sweep over the rates, its result, the bounds on its curve, and advice."""
