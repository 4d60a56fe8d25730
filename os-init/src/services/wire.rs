//! What `os-services` and `osctl` say to each other: the messages of
//! `proto/bascule/services/v1/services.proto`.

// Generated code has no docs of its own beyond the comments of its source.
#![allow(missing_docs, clippy::all)]

tonic::include_proto!("bascule.services.v1");
