"""A file for each training library that needs more than its framework's adapter. Import the one that you use."""
