//! Links as those who use them see them: how often, how late, in what order, and the same again with the same seed.

mod bands;
mod laws;
mod live;
mod offload;
mod queue;
mod words;
mod world;
