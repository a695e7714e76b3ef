//! Files that are elsewhere: the Hugging Face hub and object stores.
