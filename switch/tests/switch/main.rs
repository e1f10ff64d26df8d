//! The switch as its neighbours see it: tables of frames in and ports out, an obvious model beside the real thing, and
//! several threads over one FDB.

mod model;
mod requirements;
mod shared;
mod tables;
mod world;
