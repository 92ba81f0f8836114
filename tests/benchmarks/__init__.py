"""Benchmarks: each prints ratios within one run, with the spread and the sample size; no test times anything."""
