"""Searches that choose their lanes from earlier results."""
