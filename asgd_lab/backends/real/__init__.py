"""All that knows processes: a real run's server and workers over shared memory, and a pool for whole runs."""
