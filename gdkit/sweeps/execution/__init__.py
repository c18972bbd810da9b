"""Running the blocks of a sweep: one block, worker threads, worker processes, progress."""
