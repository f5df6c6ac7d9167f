"""Evaluation: accuracy and parallelism of models on benchmarks."""
