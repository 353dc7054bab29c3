"""Fine-tuning: one loop, and one file per task for what is special to it. PyTorch and transformers."""
