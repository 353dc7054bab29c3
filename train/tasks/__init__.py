"""What training knows of each task: one file per task, each with the members of `TrainTask`."""
