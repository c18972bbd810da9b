"""Running a config: checks, the run itself, other machines."""
