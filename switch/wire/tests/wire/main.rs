//! The packet vocabulary against etherparse, against a second way to make the same bytes, and against nonsense.

mod builders;
mod coalesce;
mod fragments;
mod meta;
mod mss;
mod nonsense;
mod oracle;
mod packets;
mod parser;
mod quoted;
mod render;
mod rewrite;
mod segments;
mod setters;
