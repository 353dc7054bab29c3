"""From the fp32 graph to each precision: one file per precision, each with `convert`."""
