"""Checkpoint to bundle: graphs, variants, proof."""
