//! Text to residual-stream activations in shards.
