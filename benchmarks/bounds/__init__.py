"""Are the bounds that the LR range test finds good? Trainings on real, small tasks, against a grid and other rules."""
