"""Write ten handwritten digits that the demo never trained on as PNG files, so that there is something to predict."""

import sys
from pathlib import Path

from inceptionnet.data import open_source

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
held_out = open_source("digits").splits["val"]
for index in range(0, len(held_out), len(held_out) // 10):
    (folder / held_out.names[index].replace("/", "-")).write_bytes(held_out.read(index))
