"""Ways to run the same model, each in its best setting: headway and its peers, one file each, with the members of `Peer`."""
