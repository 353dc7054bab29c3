"""The plain scripts: each task fine-tuned as the official examples do it, to compare headway's training with."""
