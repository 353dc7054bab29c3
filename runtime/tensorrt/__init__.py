"""Engines of NVIDIA's TensorRT: what they are known by, how they are built, where they lie, and which one serves."""
