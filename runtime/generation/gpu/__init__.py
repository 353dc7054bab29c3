"""Models that write on NVIDIA GPUs: one search over any engine that runs their graphs there."""
