"""What the tests share."""

import os

# Tests run side by side, and threads that wait for each other by spinning would take the cores from one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

collect_ignore = ["torch/ddp_run.py", "keras/resume_run.py"]  # programs, which tests run in processes of their own
