"""Studies: each module has run(settings) -> result, plot(result) and claims(result)."""
