"""Configs: YAML text, its schema, and the arguments of `gdkit.sweep` that it describes."""
