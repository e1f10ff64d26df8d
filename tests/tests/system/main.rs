//! System tests: a running `tapswitch`, real kernels and the usual programs, one module per topic. Run them with
//! `tests/run system`; how their world looks is described in the library of this package.

mod capture;
mod capture_command;
mod datapath;
mod demo;
mod errors;
mod explain;
mod host_access;
mod lan;
mod leases;
mod lifecycle;
mod metrics;
mod nat;
mod outside;
mod policy;
mod relay;
mod relay_publish;
mod run;
mod scan;
mod tcp;
mod udp_icmp;
mod user;
mod world;
