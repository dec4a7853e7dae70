"""All networks, one file per paper (v4's residual networks have a file of their own), and one dict of them."""

from __future__ import annotations

from inceptionnet.nets import inception_resnet, inception_v1, inception_v2, inception_v3, inception_v4
from inceptionnet.nets.spec import Network

PAPERS = {
    "v1": "Szegedy et al., Going deeper with convolutions, arXiv:1409.4842",
    "v2": "Ioffe and Szegedy, Batch normalization, arXiv:1502.03167",
    "v3": "Szegedy et al., Rethinking the Inception architecture for computer vision, arXiv:1512.00567",
    "v4": "Szegedy et al., Inception-v4, Inception-ResNet and the impact of residual connections, arXiv:1602.07261",
}
"""What the square brackets in `Network.paper` and in the docstrings stand for."""

NETWORKS: dict[str, Network] = {
    network.name: network
    for module in (inception_v1, inception_v2, inception_v3, inception_v4, inception_resnet)
    for network in module.NETWORKS
}
"""Every network by name, as published."""
