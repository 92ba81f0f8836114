"""The process backend: a server process and worker processes on one node, over anonymous shared memory."""
