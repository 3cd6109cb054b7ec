//! Training over the shards of a data set that is larger than the disk, such as The Stack.
//!
//! A [`manifest`] names every shard, with its size and checksum, at one commit of the data set; nothing else need be known to stream it.

pub mod manifest;
