"""What the tests share."""

collect_ignore = ["ddp_run.py", "keras_run.py"]  # a program, which test_keras.py runs in processes of their own
