"""Compares what we harvested with what a peer did of the first batch: python harvest_check.py WORK NAME

Rows of ours are found by their document and position; every token of the text is one.
"""

import sys
from pathlib import Path

import numpy
import pyarrow.parquet
from safetensors.torch import load_file

work, name = Path(sys.argv[1]), sys.argv[2]
theirs = load_file(work / f"{name}.safetensors")["x"].numpy()
tokens = load_file(work / "tokens.safetensors")["tokens"][: len(theirs)].numpy()
tables = [pyarrow.parquet.read_table(path) for path in sorted((work / "acts").glob("shard-*.parquet"))]
table = pyarrow.concat_tables(tables)
(hook,) = [column for column in table.column_names if column.startswith("blocks.")]
x = numpy.frombuffer(table[hook].combine_chunks().buffers()[1], "<f4").reshape(len(table), -1)
ids, positions = table["token_id"].to_numpy(), table["position"].to_numpy()
# A row by its token and position: random tokens hardly ever repeat at one position; those that do are left out.
places = {}
for row, key in enumerate(zip(ids.tolist(), positions.tolist())):
    places.setdefault(key, []).append(row)
compared, worst = 0, 0.0
scale = float(numpy.sqrt((theirs.astype("f8") ** 2).mean()))
for window, ours in zip(tokens.tolist(), theirs):
    for position, token in enumerate(window):
        rows = places[token, position]
        if len(rows) == 1:
            compared += 1
            worst = max(worst, float(numpy.abs(x[rows[0]] - ours[position]).max()))
print(f"{name}: {compared} of {tokens.size} vectors compared, largest difference {worst / scale:.1e} of the root mean square")
assert compared > 0.9 * tokens.size and worst <= 1e-4 * scale
