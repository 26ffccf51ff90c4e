"""Published experiments that can be made again where their data is."""
