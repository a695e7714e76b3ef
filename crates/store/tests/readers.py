"""Runs the lines of ../README.md and of the project's README.md that read shards with pyarrow, polars and DuckDB, as
they stand there.

    cargo run --release -p monosema-store --example known_numbers -- DIR
    python readers.py DIR        (needs numpy, pyarrow, polars, duckdb)
"""

import pathlib
import re
import sys

import duckdb
import numpy
import polars
import pyarrow.parquet

directory = pathlib.Path(sys.argv[1])
crate = pathlib.Path(__file__).resolve().parent.parent
readme, project_readme = (crate / "README.md").read_text(), (crate.parent.parent / "README.md").read_text()
expected = (numpy.arange(60) * 0.5 - 7).reshape(10, 6)
h, w = "blocks.9.hook_resid_post", 6


def shard(name):
    return str(directory / name / "shard-00000.parquet")


def check(name, x):
    assert (numpy.asarray(x, dtype="f8") == expected).all(), (name, x)
    print("ok", name)


def python_line(line, name):
    scope = {"f": shard(name), "h": h, "w": w, "numpy": numpy, "pyarrow": pyarrow, "polars": polars}
    exec(line, scope)
    return scope["x"]


lines = re.findall(r"^x = .*$", readme, re.MULTILINE)
assert len(lines) == 4
for f32, bf16 in (lines[:2], lines[2:]):
    tool = "polars" if "polars" in f32 else "pyarrow"
    check(f"{tool} f32", python_line(f32, "f32"))
    check(f"{tool} f16", python_line(f32.replace("<f4", "<f2").replace("Float32", "Float16"), "f16"))
    check(f"{tool} bf16", python_line(bf16, "bf16"))

queries = re.findall(r"^SELECT .*;$", readme, re.MULTILINE)
assert len(queries) == 3
for name, query in zip(("f32", "bf16", "f16"), queries):
    rows = duckdb.sql(query.replace("shard-00000.parquet", shard(name)).rstrip(";")).fetchall()
    check(f"DuckDB {name}", [row[0] for row in rows])

# The project's README reads the demo's activations: the same lines, of another file, hook and width.
lines = re.findall(r"^x = .*$", project_readme, re.MULTILINE)
assert len(lines) == 2
for line in lines:
    check("README " + ("polars" if "polars" in line else "pyarrow"), python_line(line, "f32"))
queries = re.findall(r"^SELECT .*;$", project_readme, re.MULTILINE)
assert len(queries) == 1
query = re.sub(r"'runs/.*?'", f"'{shard('f32')}'", queries[0]).replace("range(128)", f"range({w})")
query = query.replace("blocks.2.hook_resid_post", h).rstrip(";")
check("README DuckDB", [row[0] for row in duckdb.sql(query).fetchall()])

for name in ("f32-list", "f16-list"):
    check(f"pyarrow {name}", numpy.stack(pyarrow.parquet.read_table(shard(name))[h].to_numpy()))
    check(f"polars {name}", polars.read_parquet(shard(name))[h].to_numpy())
    check(f"DuckDB {name}", [row[0] for row in duckdb.sql(f'SELECT "{h}" FROM \'{shard(name)}\'').fetchall()])
metadata = pyarrow.parquet.read_table(shard("f32")).schema.metadata
assert metadata[b"monosema.dtype"] == b"f32" and metadata[b"monosema.version"] == b"2"
