"""What a run leaves behind: one schema for every backend. This package computes nothing and draws nothing."""
