"""The simulator held against theory and against references written another way; see laws.py for how."""
