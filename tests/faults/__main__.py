"""``python -m tests.faults``. The processes of the campaign cannot import this file, so it has nothing of its own."""

from tests.faults.campaign import main

if __name__ == "__main__":
    main()
