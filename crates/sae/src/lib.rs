//! Sparse autoencoders: architectures, losses, initialisation, file formats.
