"""OpenAPI 3.1, made from the very types that requests are checked with and answers are made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, cast

import msgspec

from actorkit.gateway import problems as standard
from actorkit.gateway.problems import PROBLEM_JSON, ProblemType
from examples.capacity_service import problems as own
from examples.capacity_service.answers import (
    AvailabilityAnswer,
    PoolAnswer,
    PoolDescription,
    ReleaseAnswer,
    ReservationAnswer,
    ReserveAnswer,
)
from examples.capacity_service.api import VERSION_MAX
from examples.capacity_service.ids import ID_PATTERN, RESERVATION_PATTERN
from examples.capacity_service.operations import Drain, Members, Shards
from examples.capacity_service.requests import AvailabilityRequest, PoolRequest, ReleaseRequest, ReserveRequest
from examples.capacity_service.times import TIME_PATTERN
from examples.capacity_service.tokens import TOKEN_PATTERN

__all__ = ["document", "document_json"]

Json = dict[str, Any]
Operation = tuple[str, str, Json]

_REQUESTS: Final = (PoolRequest, ReserveRequest, ReleaseRequest, AvailabilityRequest)
_ANSWERS: Final = (
    PoolAnswer,
    ReserveAnswer,
    ReleaseAnswer,
    AvailabilityAnswer,
    PoolDescription,
    ReservationAnswer,
    Members,
    Shards,
    Drain,
)
_DRAIN: Final = "/cluster/drain"
_ANY_CALL: Final = (standard.INVALID_REQUEST, standard.REQUEST_TOO_LARGE, standard.OVERLOADED, standard.INTERNAL_ERROR)
_ANY_RPC: Final = (*_ANY_CALL, standard.UNAVAILABLE)
_WRITE: Final = (
    *_ANY_RPC,
    standard.UNSUPPORTED_MEDIA_TYPE,
    standard.IDEMPOTENCY_KEY_REUSED,
    standard.OUTCOME_UNKNOWN,
)


def document_json(*, secured: bool, drainable: bool = False) -> bytes:
    """What ``GET /openapi.json`` answers; ``secured``: this node asks for a bearer token; ``drainable``: operators may
    tell it to leave."""
    return msgspec.json.encode(document(secured=secured, drainable=drainable))


def document(*, secured: bool, drainable: bool = False) -> Json:
    paths: Json = {}
    for path, method, operation in (*_rpc(), *_operations(), *(_drain() if drainable else ())):
        if path == _DRAIN or (secured and not path.startswith("/health/")):
            operation["security"] = [{"bearer": []}]
            operation["responses"] |= _problems([standard.UNAUTHENTICATED])
        paths.setdefault(path, {})[method] = operation
    components: Json = {"schemas": _schemas()}
    if secured or drainable:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Capacity service",
            "version": "1.0.0",
            "description": "Sells a limited capacity without ever overselling it. Paths take the methods given here "
            "and no others, HEAD and OPTIONS included: 405. Unknown members and parameters: 400.",
        },
        "paths": paths,
        "components": components,
    }


# ---------------------------------------------------------------------------------------------------------- operations


def _rpc() -> list[Operation]:
    token = {"X-Consistency-Token": {"description": "This write, for read-your-writes.", "schema": _TOKEN}}
    pool_id = _parameter("path", "pool_id", {"type": "string", "pattern": _ecma(ID_PATTERN)})
    reservation_id = _parameter("path", "reservation_id", {"type": "string", "pattern": _ecma(RESERVATION_PATTERN)})
    past = [
        _parameter("query", "at_version", {"type": "integer", "minimum": 0, "maximum": VERSION_MAX}, required=False),
        _parameter(
            "query",
            "at_time",
            {"type": "string", "format": "date-time", "pattern": _ecma(TIME_PATTERN), "maxLength": 27},
            required=False,
        ),
    ]
    written: Json = {"parameters": [_IDEMPOTENCY_KEY]}
    return [
        (
            "/rpc/pools",
            "post",
            written
            | _operation("changePool", "Creates a pool, or changes the given members of one", PoolAnswer, _WRITE, token)
            | _body(PoolRequest),
        ),
        (
            "/rpc/reserve",
            "post",
            written
            | _operation(
                "reserve",
                "Reserves units of a pool",
                ReserveAnswer,
                (*_WRITE, own.POOL_NOT_FOUND, own.INSUFFICIENT_CAPACITY, own.RESERVATION_CONFLICT),
                token,
            )
            | _body(ReserveRequest),
        ),
        (
            "/rpc/release",
            "post",
            written
            | _operation(
                "release", "Releases units of a reservation", ReleaseAnswer, (*_WRITE, own.RESERVATION_NOT_FOUND), token
            )
            | _body(ReleaseRequest),
        ),
        (
            "/rpc/availability",
            "post",
            {"parameters": [_parameter("header", "X-Consistency-Token", _TOKEN, required=False)]}
            | _operation(
                "availability",
                "The pools that match all filters, from the local read model",
                AvailabilityAnswer,
                (*_ANY_RPC, standard.UNSUPPORTED_MEDIA_TYPE, standard.READ_MODEL_BEHIND),
            )
            | _body(AvailabilityRequest),
        ),
        # GET /rpc/availability/changes is not described: its answer has no end, and who calls all that is described
        # here, as contract tests do, waits for the end of each answer.
        (
            "/rpc/pools/{pool_id}",
            "get",
            {"parameters": [pool_id, *past]}
            | _operation(
                "getPool",
                "A pool as its owner knows it, or as it was: at a version, or at a time, not both",
                PoolDescription,
                (*_ANY_RPC, own.POOL_NOT_FOUND),
            ),
        ),
        (
            "/rpc/reservations/{reservation_id}",
            "get",
            {"parameters": [reservation_id]}
            | _operation(
                "getReservation",
                "A reservation as its pool's owner knows it",
                ReservationAnswer,
                (*_ANY_RPC, own.RESERVATION_NOT_FOUND),
            ),
        ),
    ]


def _operations() -> list[Operation]:
    ready = (*_ANY_CALL, standard.UNAVAILABLE)
    return [
        ("/health/live", "get", _operation("live", "Whether the node runs", _status("live"), _ANY_CALL)),
        ("/health/ready", "get", _operation("ready", "Whether the node can serve", _status("ready"), ready)),
        ("/cluster/members", "get", _operation("members", "The nodes of the cluster", Members, _ANY_CALL)),
        ("/cluster/shards", "get", _operation("shards", "Who owns which shard", Shards, ready)),
        ("/metrics", "get", _operation("metrics", "Metrics in Prometheus' text form", None, _ANY_CALL)),
        ("/openapi.json", "get", _operation("openapi", "This description", {"type": "object"}, _ANY_CALL)),
    ]


def _drain() -> list[Operation]:
    return [(_DRAIN, "post", _operation("drain", "Tells the node to leave, for operators", Drain, _ANY_CALL))]


def _operation(
    id: str,
    summary: str,
    answer: type[msgspec.Struct] | Json | None,
    problems: Iterable[ProblemType],
    headers: Json | None = None,
) -> Json:
    content: Json
    if answer is None:
        content = {"text/plain": {"schema": {"type": "string"}}}
    else:
        content = {"application/json": {"schema": answer if isinstance(answer, dict) else _ref(answer)}}
    response: Json = {"description": summary, "content": content}
    if headers is not None:
        response["headers"] = headers
    return {"operationId": id, "summary": summary, "responses": {"200": response} | _problems(problems)}


def _body(request: type[msgspec.Struct]) -> Json:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _ref(request)}}}}


def _parameter(place: str, name: str, schema: Json, *, required: bool = True) -> Json:
    return {"name": name, "in": place, "required": required, "schema": schema}


def _status(name: str) -> Json:
    return {
        "type": "object",
        "properties": {"status": {"const": name}},
        "required": ["status"],
        "additionalProperties": False,
    }


# ------------------------------------------------------------------------------------------------------------- problems


def _problems(types: Iterable[ProblemType]) -> Json:
    """One response for each status, with the problems that have it."""
    by_status: dict[str, list[ProblemType]] = {}
    for type in types:
        by_status.setdefault(str(type.status), []).append(type)
    return {status: _problem_response(same) for status, same in sorted(by_status.items())}


def _problem_response(types: list[ProblemType]) -> Json:
    refs = [{"$ref": f"#/components/schemas/{_problem_name(type)}"} for type in types]
    response: Json = {
        "description": "; or ".join(type.title for type in types),
        "content": {PROBLEM_JSON: {"schema": refs[0] if len(refs) == 1 else {"oneOf": refs}}},
    }
    if types[0].status == 429:
        response["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    if types[0].status == 401:
        response["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return response


def _problem_name(type: ProblemType) -> str:
    return type.name.title().replace("-", "") + "Problem"


def _problem_schema(type: ProblemType) -> Json:
    # Whether an unknown outcome may be repeated depends on the request.
    retryable: Json = {"type": "boolean"} if type is standard.OUTCOME_UNKNOWN else {"const": type.retryable}
    properties: Json = {
        "type": {"const": type.uri},
        "title": {"const": type.title},
        "status": {"const": type.status},
        "detail": {"type": "string"},
        "retryable": retryable,
    }
    properties |= {member: {"type": "integer", "minimum": 0} for member in type.members}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


# -------------------------------------------------------------------------------------------------------------- schemas


def _schemas() -> Json:
    template = "#/components/schemas/{name}"
    _, schemas = msgspec.json.schema_components((*_REQUESTS, *_ANSWERS), ref_template=template)
    for type in {*standard.STANDARD, *own.REFUSALS.values()}:
        schemas[_problem_name(type)] = _problem_schema(type)
    return cast("Json", _exact(schemas))


def _ref(type: type[msgspec.Struct]) -> Json:
    return {"$ref": f"#/components/schemas/{type.__name__}"}


def _exact(schema: object) -> object:
    """Patterns in JavaScript's dialect, which schemas use; and answers have no members but those that are described."""
    if isinstance(schema, list):
        return [_exact(item) for item in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    exact = {name: _exact(value) for name, value in cast("dict[str, object]", schema).items()}
    if isinstance(pattern := exact.get("pattern"), str):
        exact["pattern"] = _ecma(pattern)
    if "properties" in exact and exact.get("type") == "object":
        exact.setdefault("additionalProperties", False)
    return exact


def _ecma(pattern: str) -> str:
    return pattern.replace(r"\Z", "$")


_TOKEN: Final[Json] = {"type": "string", "pattern": _ecma(TOKEN_PATTERN)}
_IDEMPOTENCY_KEY: Final = _parameter(
    "header",
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    required=False,
)
