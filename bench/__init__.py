"""Latency, throughput, memory and quality, beside peers."""
