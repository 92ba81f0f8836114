"""Real processes: a run's server and workers, their supervisor, and a pool for whole runs."""
