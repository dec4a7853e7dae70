"""Make a small data set from a large one: every N-th row of each .parquet file in a folder.

python benchmarks/parquet_slice.py SOURCE TARGET N
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

source, target, step = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
target.mkdir(parents=True, exist_ok=True)
for file in sorted(source.glob("*.parquet")):
    table = pq.read_table(file)
    taken = table.take(np.arange(0, len(table), step))
    pq.write_table(taken, target / file.name)
    print(f"{target / file.name}: {len(taken)} of {len(table)} rows")
