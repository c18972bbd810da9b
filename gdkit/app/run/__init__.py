"""Running a config: a sweep or a study, its outputs, and the estimate of its cost."""
