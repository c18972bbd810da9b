"""gdkit against its peers on the same work, in one process: ``python -m benchmarks``."""

# Without JAX, which reads its flags when it is imported: the names of workloads.py that are compared.
COMPARED = ("scalar", "small_mlp", "digits_mlp", "wide_mlp", "cnn", "logistic", "attention")
