"""Other ways to run the same model, in their best setting: one file per peer, each with `open_peer`."""
