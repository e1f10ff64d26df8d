//! The packet vocabulary against etherparse, against a second way to make the same bytes, and against nonsense.

mod builders;
mod coalesce;
mod meta;
mod mss;
mod nonsense;
mod oracle;
mod packets;
mod parser;
mod render;
mod segments;
mod setters;
