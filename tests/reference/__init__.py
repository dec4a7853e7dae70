"""The networks written out a second time by hand, in ordinary torch, to compare the package's networks with.

Nothing here imports the package: every channel number, padding and concatenation is written from the papers and from
the layout of the released networks, so that a mistake in one of the two descriptions shows as a difference of logits.
Each network is its main path only (no auxiliary heads), in the branch order in which its outputs are concatenated.
"""
