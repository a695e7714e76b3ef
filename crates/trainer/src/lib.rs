//! One training loop for every dictionary.
