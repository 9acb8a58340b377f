"""Mo-Mo's messages. ``momo_pb2*.py`` are made from ``momo.proto`` (see the comment there); nothing in them is
edited."""
