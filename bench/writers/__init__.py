"""Ways to let the same model write, each in its best setting: headway and its peers, one file each, with the members of `Writer`."""
