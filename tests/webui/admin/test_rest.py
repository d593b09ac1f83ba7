"""The REST API: tokens and scopes, what is accepted, how it refuses, and its OpenAPI document."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import jsonschema
import pytest

from gateway.control.client import ControlError
from tests.webui.admin.fake_admin import FakeAdmin, running_admin
from tests.webui.admin.visitor import Program, admin, logged_in
from tests.webui.fake_daemon import free_port
from tests.webui.wire import run
from webui.admin.schema import array, choice, integer, nullable, number, problems, record, text
from webui.sse import Streams

ALL_SCOPES = ("read", "operate", "captures", "configure")


def test_a_token_opens_what_its_scopes_are_for(tmp_path: Path) -> None:
    """Nothing without one, nothing beyond it, and never pages."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            fake.world.populate(3)
            mac = fake.world.clients[0]["mac"]
            nobody = Program(visitor.port, "")
            answer = await nobody.ask("GET", "/clients")
            assert (answer.status, answer.header("content-type")) == (401, "application/problem+json")
            assert answer.header("www-authenticate").startswith("Bearer")
            assert (await Program(visitor.port, "wrong").ask("GET", "/clients")).status == 401
            reader = Program(visitor.port, fake.token("read"))
            assert (await reader.ask("GET", "/clients")).json["total"] == 3
            refused = await reader.ask("POST", f"/clients/{mac}/kick", {})
            assert (refused.status, refused.json["code"]) == (403, "denied")
            operator = Program(visitor.port, fake.token("operate"))
            assert (await operator.ask("POST", f"/clients/{mac}/kick", {})).status == 200
            assert (await operator.ask("GET", "/config/text")).status == 403
            page = await visitor.get("/clients", Authorization=f"Bearer {reader.token}")
            assert page.status == 303
            visitor.jar["__Host-postern"] = reader.token
            assert (await visitor.get("/clients")).status == 403

    run(story())


def test_a_program_that_finds_no_room_for_its_stream_is_told_in_json(tmp_path: Path) -> None:
    """503 with Retry-After, as a program can read it."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, service):
            service.app.streams = Streams(most=0)
            program = Program(visitor.port, fake.token("read"))
            answer = await program.ask("GET", "/events/stream")
            assert (answer.status, answer.header("content-type")) == (503, "application/problem+json")
            assert answer.json["code"] == "busy"
            assert int(answer.header("retry-after")) > 0

    run(story())


def test_a_browser_may_use_it_with_its_session_and_the_token_of_forms(tmp_path: Path) -> None:
    """Looking needs the cookie alone; a change needs X-CSRF-Token too."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            fake.world.populate(3)
            logged_in(fake, visitor)
            path = f"/api/v1/clients/{fake.world.clients[0]['mac']}/kick"
            assert (await visitor.get("/api/v1/clients")).status == 200
            kind = "application/json"
            assert (await visitor.ask("POST", path, b"{}", kind)).status == 403
            token = {"X-CSRF-Token": visitor.csrf}
            foreign = {**token, "Sec-Fetch-Site": "cross-site"}
            assert (await visitor.ask("POST", path, b"{}", kind, foreign)).status == 403
            assert (await visitor.ask("POST", path, b"{}", kind, token)).status == 200

    run(story())


@pytest.mark.parametrize(
    ("method", "path", "body", "words"),
    [
        ("GET", "/clients?limit=0", None, "limit: from 1 to 1000"),
        ("GET", "/clients?limit=x", None, "limit: a whole number"),
        ("GET", "/clients?nonsense=1", None, "nonsense: is not known"),
        ("GET", "/clients?state=away", None, "state: one of online"),
        ("POST", "/voucher-batches", {}, "count: is missing"),
        ("POST", "/voucher-batches", {"count": True}, "count: a whole number"),
        ("POST", "/voucher-batches", {"count": 5, "colour": 1}, "colour: is not known"),
        ("POST", "/users", {"username": "a\0b", "password": "x"}, "not text"),
        ("POST", "/voucher-batches/x/revoke", {}, "batch: a whole number"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(
    tmp_path: Path, method: str, path: str, body: dict[str, object] | None, words: str
) -> None:
    """400 with every problem in a sentence; the daemon is not asked."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            program = Program(visitor.port, fake.token(*ALL_SCOPES))
            answer = await program.ask(method, path, body)
            assert answer.status == 400
            assert words in answer.json["detail"]
            assert not fake.called("admin.call")

    run(story())


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"count": NaN}', "application/json", 400),
        (b'{"count": 1}', "text/plain", 415),
        (b"[" * 100_000, "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"count": ' + b"1" * 5000 + b"}", "application/json", 400),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(tmp_path: Path, body: bytes, kind: str, status: int) -> None:
    """Whatever it is."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            headers = {"Authorization": f"Bearer {fake.token(*ALL_SCOPES)}"}
            answer = await visitor.ask("POST", "/api/v1/voucher-batches", body, kind, headers)
            assert answer.status == status

    run(story())


def test_the_daemons_refusals_become_problems(tmp_path: Path) -> None:
    """With the status that fits, the code, and Retry-After where trying again helps."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            program = Program(visitor.port, fake.token("read"))
            for code, status in (("not_found", 404), ("conflict", 409), ("busy", 503), ("timeout", 504)):
                fake.failures["users.list"] = ControlError(code, "a sentence")
                answer = await program.ask("GET", "/users")
                assert answer.status == status
                assert (answer.json["code"], answer.json["detail"]) == (code, "a sentence")
                assert bool(answer.header("retry-after")) == (status == 503)

    run(story())


def test_the_document_describes_every_route_and_is_valid(tmp_path: Path) -> None:
    """OpenAPI 3.1; every operation has its own id, a summary, and the scope that it takes."""

    async def story() -> None:
        async with admin(tmp_path) as (_, visitor, service):
            answer = await visitor.get("/api/v1/openapi.json")
            document = answer.json
            assert document == json.loads(json.dumps(service.app.document))
            assert document["openapi"].startswith("3.1")
            operations = [operation for path in document["paths"].values() for operation in path.values()]
            ids = [operation["operationId"] for operation in operations]
            assert len(ids) == len(set(ids)) > 50
            for operation in operations:
                assert operation["summary"].endswith(".")
                for security in operation["security"]:
                    assert set(security["token"]) <= set(ALL_SCOPES)
                for schema in _schemas(operation):
                    jsonschema.Draft202012Validator.check_schema(schema)

    run(story())


def _schemas(operation: dict[str, object]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("schema"), dict):
                found.append(value["schema"])
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(operation)
    return found


def test_our_check_agrees_with_a_json_schema_validator() -> None:
    """The same values pass and fail, so that the document tells the truth."""
    schema = record(
        {
            "name": text(shortest=1, longest=5, pattern="[a-z]+"),
            "size": integer(low=1, high=9),
            "part": nullable(number()),
            "kind": nullable(choice("", "a", "b")),
            "rows": array(integer(), most=2, least=1),
        },
        required=("name",),
    )
    values: list[object] = [
        {"name": "abc"},
        {"name": ""},
        {"name": "abcdef"},
        {"name": "ABC"},
        {"name": "abc", "size": 0},
        {"name": "abc", "size": 9},
        {"name": "abc", "size": 1.0},
        {"name": "abc", "size": 1.5},
        {"name": "abc", "size": True},
        {"name": "abc", "part": None},
        {"name": "abc", "part": 1},
        {"name": "abc", "kind": None},
        {"name": "abc", "kind": "c"},
        {"name": "abc", "rows": []},
        {"name": "abc", "rows": [1, 2, 3]},
        {"name": "abc", "rows": [1, "2"]},
        {"name": "abc", "more": 1},
        {},
        [],
        "abc",
        None,
    ]
    validator = jsonschema.Draft202012Validator(schema)
    for value in values:
        assert bool(problems(schema, value)) == (not validator.is_valid(value)), value


def test_events_are_streamed(tmp_path: Path) -> None:
    """As server-sent events, until the token is revoked."""

    async def story() -> None:
        async with admin(tmp_path) as (fake, visitor, _):
            token = fake.token("read")
            reader, writer = await visitor.connect()
            head = f"GET /api/v1/events/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
            writer.write(head.encode())
            head_of_answer = await reader.readuntil(b"\r\n\r\n")
            assert b"text/event-stream" in head_of_answer
            await reader.readuntil(b"retry")
            for _ in range(100):
                if fake.events:
                    break
                await asyncio.sleep(0.02)
            fake.tell({"kind": "gate_opened", "mac": "02:00:00:00:00:01"})
            found = await asyncio.wait_for(reader.readuntil(b"02:00:00:00:00:01"), 3)
            assert b"event: gate_opened" in found
            fake.tokens.clear()
            fake.tell({"kind": "more"})
            assert b"event: over" in await asyncio.wait_for(reader.readuntil(b"event: over"), 3)
            writer.close()

    run(story())


@pytest.mark.slow
def test_schemathesis_finds_no_fault(tmp_path: Path) -> None:
    """Requests made from the document: no 5xx, answers as described, what is wrong is refused, unknown methods too."""
    import subprocess
    import sys

    async def story() -> None:
        fake = FakeAdmin()
        fake.world.populate(5)
        port = free_port()
        async with running_admin(fake, port, tmp_path):
            # Methods that HTTP itself does not know are answered with 501, as they should be (RFC 9110 §15.6.2).
            methods = ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"]
            (tmp_path / "schemathesis.toml").write_text(f"[phases.coverage]\nunexpected-methods = {methods}\n")
            command = [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"https://127.0.0.1:{port}/api/v1/openapi.json"),
                *("--header", f"Authorization: Bearer {fake.token(*ALL_SCOPES)}", "--tls-verify", "false"),
                *("--max-examples", "6", "--phases", "examples,coverage,fuzzing", "--seed", "1", "--no-color"),
                *("--checks", "not_a_server_error,response_schema_conformance,content_type_conformance"),
                *("--exclude-path-regex", "stream", "--exclude-tag", "Captures", "--workers", "1"),
                # Below the bound on requests of one address, which answers in plain text before it reads a request.
                *("--generation-database", "none", "--request-timeout", "20", "--rate-limit", "80/s"),
            ]
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            out, _ = await process.communicate()
            assert process.returncode == 0, out.decode()[:8000]

    with asyncio.Runner() as runner:
        runner.run(story())
