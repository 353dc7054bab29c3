"""What each inference engine needs of a graph: one file per engine."""
