//! One strategy per kind: what its schema cannot say. A kind without one takes [`Strategy`]'s defaults.
