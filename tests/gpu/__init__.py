"""What is tested and measured where a GPU is at hand, in one command: `make gpu`, or `python3 -m tests.gpu`."""
