"""From a model, its laws and data to certificates: the one pipeline behind estimators, command line and benchmarks."""
