"""The benchmarks: python -m benchmarks.bench"""
