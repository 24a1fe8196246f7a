//! Activation shards on disk: header, shard, manifest.
