"""What gdkit's programs do per step on accelerators, and the same written by hand, counted without an accelerator."""
