"""The figures of studies, a file a study."""
