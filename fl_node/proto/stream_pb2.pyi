from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Up(_message.Message):
    __slots__ = ("hello", "head", "chunk", "bye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    BYE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    head: Head
    chunk: Chunk
    bye: Bye
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., head: _Optional[_Union[Head, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., bye: _Optional[_Union[Bye, _Mapping]] = ...) -> None: ...

class Down(_message.Message):
    __slots__ = ("welcome", "refused", "head", "chunk", "received", "finish")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    refused: Refused
    head: Head
    chunk: Chunk
    received: Received
    finish: Finish
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., head: _Optional[_Union[Head, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., received: _Optional[_Union[Received, _Mapping]] = ..., finish: _Optional[_Union[Finish, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "flower", "run", "client", "instance", "holding", "failure")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    FLOWER_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    HOLDING_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    flower: str
    run: str
    client: str
    instance: str
    holding: _containers.RepeatedScalarFieldContainer[str]
    failure: str
    def __init__(self, protocol: _Optional[int] = ..., flower: _Optional[str] = ..., run: _Optional[str] = ..., client: _Optional[str] = ..., instance: _Optional[str] = ..., holding: _Optional[_Iterable[str]] = ..., failure: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("run_number", "node_id", "reconnect_s")
    RUN_NUMBER_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_S_FIELD_NUMBER: _ClassVar[int]
    run_number: int
    node_id: int
    reconnect_s: float
    def __init__(self, run_number: _Optional[int] = ..., node_id: _Optional[int] = ..., reconnect_s: _Optional[float] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Head(_message.Message):
    __slots__ = ("id", "reply_to", "sequence", "size_bytes", "busy_seconds")
    ID_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUSY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    id: str
    reply_to: str
    sequence: int
    size_bytes: int
    busy_seconds: float
    def __init__(self, id: _Optional[str] = ..., reply_to: _Optional[str] = ..., sequence: _Optional[int] = ..., size_bytes: _Optional[int] = ..., busy_seconds: _Optional[float] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("offset", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Received(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class Finish(_message.Message):
    __slots__ = ("succeeded", "reason")
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    succeeded: bool
    reason: str
    def __init__(self, succeeded: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class Bye(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Saved(_message.Message):
    __slots__ = ("run", "client", "state", "reply_to", "reply", "busy_seconds")
    RUN_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    BUSY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    run: str
    client: str
    state: bytes
    reply_to: str
    reply: bytes
    busy_seconds: float
    def __init__(self, run: _Optional[str] = ..., client: _Optional[str] = ..., state: _Optional[bytes] = ..., reply_to: _Optional[str] = ..., reply: _Optional[bytes] = ..., busy_seconds: _Optional[float] = ...) -> None: ...
