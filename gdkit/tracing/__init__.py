"""Programs that JAX has traced, and errors of JAX in the user's code that it traces."""
