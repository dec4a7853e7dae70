"""An engine of this package's own for CPUs, in fp32: Cook–Toom (Winograd) convolutions and products in registers."""
