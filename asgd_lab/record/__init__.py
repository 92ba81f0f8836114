"""Run directories: the same files and columns from every backend. This package computes nothing and draws nothing."""
