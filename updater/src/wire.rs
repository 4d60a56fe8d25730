//! What `osupdated` and `osupdate` say to each other: the messages of
//! `proto/bascule/update/v1/update.proto`.

// Generated code has no docs of its own beyond the comments of its source.
#![allow(missing_docs, clippy::all)]

tonic::include_proto!("bascule.update.v1");
