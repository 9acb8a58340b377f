"""The transport's messages; `stream_pb2` is generated from `stream.proto` (see that file's head for the command)."""
