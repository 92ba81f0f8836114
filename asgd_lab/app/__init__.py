"""The command line: it reads arguments, shows what the interface returns, and sets the exit status; nothing else."""
