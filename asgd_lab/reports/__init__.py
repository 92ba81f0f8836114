"""Reports: one self-contained page over recorded runs; it reads records, and computes nothing anew."""
