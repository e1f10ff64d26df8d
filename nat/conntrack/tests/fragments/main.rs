//! Fragments through a translator, to a receiver that knows nothing but bytes and their places.

mod attacks;
mod expiry;
mod floods;
mod model;
mod order;
mod world;
