"""The parts of check_gpu.py: each section runs in a process of its own, because an error on a GPU
leaves a process without it, and saves what it has after every measurement."""
