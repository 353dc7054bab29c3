"""Engines that run a graph: one file per engine, each with the members of `base.Engine`."""
