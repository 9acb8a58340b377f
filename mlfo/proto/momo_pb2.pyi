# mypy: ignore-errors
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Intent(_message.Message):
    __slots__ = ("intentID", "Targets", "run_id", "clients", "config_json", "cohort", "seed", "application", "join_timeout_s", "message_timeout_s", "grace_s", "centralised")
    INTENTID_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    COHORT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    JOIN_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    CENTRALISED_FIELD_NUMBER: _ClassVar[int]
    intentID: str
    Targets: _containers.RepeatedCompositeFieldContainer[Target]
    run_id: str
    clients: _containers.RepeatedScalarFieldContainer[str]
    config_json: str
    cohort: str
    seed: int
    application: str
    join_timeout_s: float
    message_timeout_s: float
    grace_s: float
    centralised: bool
    def __init__(self, intentID: _Optional[str] = ..., Targets: _Optional[_Iterable[_Union[Target, _Mapping]]] = ..., run_id: _Optional[str] = ..., clients: _Optional[_Iterable[str]] = ..., config_json: _Optional[str] = ..., cohort: _Optional[str] = ..., seed: _Optional[int] = ..., application: _Optional[str] = ..., join_timeout_s: _Optional[float] = ..., message_timeout_s: _Optional[float] = ..., grace_s: _Optional[float] = ..., centralised: _Optional[bool] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("ID", "operation", "operand", "Constraints")
    ID_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    OPERAND_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINTS_FIELD_NUMBER: _ClassVar[int]
    ID: str
    operation: str
    operand: str
    Constraints: Constraints
    def __init__(self, ID: _Optional[str] = ..., operation: _Optional[str] = ..., operand: _Optional[str] = ..., Constraints: _Optional[_Union[Constraints, _Mapping]] = ...) -> None: ...

class Constraints(_message.Message):
    __slots__ = ("privacylevel", "sourcekind", "modelkind", "fracfit", "minfit", "minav", "numround", "sameserv", "avgalgo")
    PRIVACYLEVEL_FIELD_NUMBER: _ClassVar[int]
    SOURCEKIND_FIELD_NUMBER: _ClassVar[int]
    MODELKIND_FIELD_NUMBER: _ClassVar[int]
    FRACFIT_FIELD_NUMBER: _ClassVar[int]
    MINFIT_FIELD_NUMBER: _ClassVar[int]
    MINAV_FIELD_NUMBER: _ClassVar[int]
    NUMROUND_FIELD_NUMBER: _ClassVar[int]
    SAMESERV_FIELD_NUMBER: _ClassVar[int]
    AVGALGO_FIELD_NUMBER: _ClassVar[int]
    privacylevel: str
    sourcekind: str
    modelkind: str
    fracfit: str
    minfit: str
    minav: str
    numround: str
    sameserv: str
    avgalgo: str
    def __init__(self, privacylevel: _Optional[str] = ..., sourcekind: _Optional[str] = ..., modelkind: _Optional[str] = ..., fracfit: _Optional[str] = ..., minfit: _Optional[str] = ..., minav: _Optional[str] = ..., numround: _Optional[str] = ..., sameserv: _Optional[str] = ..., avgalgo: _Optional[str] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("status", "run_id", "server", "reason", "notes")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    status: str
    run_id: str
    server: str
    reason: str
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, status: _Optional[str] = ..., run_id: _Optional[str] = ..., server: _Optional[str] = ..., reason: _Optional[str] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class ResetRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResetReply(_message.Message):
    __slots__ = ("freed", "notes")
    FREED_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    freed: _containers.RepeatedScalarFieldContainer[str]
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, freed: _Optional[_Iterable[str]] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class ServersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Server(_message.Message):
    __slots__ = ("name", "address", "cohort", "run_id", "source", "model", "since")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    COHORT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    cohort: str
    run_id: str
    source: str
    model: str
    since: float
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., cohort: _Optional[str] = ..., run_id: _Optional[str] = ..., source: _Optional[str] = ..., model: _Optional[str] = ..., since: _Optional[float] = ...) -> None: ...

class ServersReply(_message.Message):
    __slots__ = ("servers",)
    SERVERS_FIELD_NUMBER: _ClassVar[int]
    servers: _containers.RepeatedCompositeFieldContainer[Server]
    def __init__(self, servers: _Optional[_Iterable[_Union[Server, _Mapping]]] = ...) -> None: ...
