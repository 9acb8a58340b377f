"""The transport's messages; `stream_pb2` is generated from `stream.proto` (its head says how)."""
