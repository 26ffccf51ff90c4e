"""What the tests share."""

collect_ignore = ["ddp_run.py", "keras_run.py"]  # programs, which tests run in processes of their own
