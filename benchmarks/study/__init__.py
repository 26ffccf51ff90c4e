"""Does it train better? Schedules compared on real tasks, all with rates that no hand has chosen."""
