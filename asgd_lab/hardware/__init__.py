"""What hardware costs: numbers with units, and the random step times; no simulator in this folder."""
