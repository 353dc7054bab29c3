"""Decoding with kernels and with settings of a call: one file per encoder task, each with the members of `base.Decoder`."""
