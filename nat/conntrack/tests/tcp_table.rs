//! The TCP tracker: a table of every state and segment, transcripts of whole connections, and laws.

mod tcp_table {
    pub mod frames;
    pub mod guesses;
    pub mod hosts;
    pub mod script;
    pub mod states;
    pub mod transcripts;
}
