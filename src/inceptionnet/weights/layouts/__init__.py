"""The layouts of published weights: name maps as data, one file per family of ports."""

from inceptionnet.weights.layouts import cadene, facenet, keras, slim, torchvision
from inceptionnet.weights.layouts.layout import Layout, Style

LAYOUTS: tuple[Layout, ...] = (
    slim.INCEPTION_V1,
    slim.INCEPTION_V2,
    slim.INCEPTION_V3,
    slim.INCEPTION_V4,
    slim.INCEPTION_RESNET_V2,
    keras.INCEPTION_V3,
    keras.INCEPTION_RESNET_V2,
    torchvision.INCEPTION_V3,
    torchvision.GOOGLENET,
    cadene.INCEPTION_V4,
    cadene.INCEPTION_RESNET_V2,
    cadene.BN_INCEPTION,
    facenet.FACENET,
    facenet.TENSORFLOW,
    facenet.KERAS,
)

__all__ = ["LAYOUTS", "Layout", "Style"]
