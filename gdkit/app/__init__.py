"""The command line, its configs and the report: the extra ``app``."""
