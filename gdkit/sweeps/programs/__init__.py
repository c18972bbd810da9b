"""The programs of a sweep: traced, compiled, packed and timed group by group."""
