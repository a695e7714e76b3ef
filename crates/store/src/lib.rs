//! Activation shards in Parquet: schema, writer, reader, shuffle.
