"""The commands of ``gdkit`` and what they print about a run."""
