//! Text to tokens to packed context windows.
