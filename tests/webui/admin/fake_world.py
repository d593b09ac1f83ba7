"""A gateway in memory behind `FakeAdmin`: guests, vouchers, users, configuration, enough for every page."""

from __future__ import annotations

import base64
import difflib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from gateway.control.client import ControlError
from gateway.control.listing import part_of
from webui.admin.daemon import JsonValue, Params

NOW = 1_767_225_600  # 2026-01-01
HOSTILE = "<b>\"'&x"
FILE = """config postern
\toption log_level 'info'

config zone 'guests'
\toption ssid 'Guest WiFi'
\tlist method 'click'
"""
Row = dict[str, Any]  # Any: JSON objects, which tests change as they like


@dataclass
class World:
    """The rows of everything."""

    clients: list[Row] = field(default_factory=list)
    vouchers: list[Row] = field(default_factory=list)
    batches: list[Row] = field(default_factory=list)
    users: list[Row] = field(default_factory=list)
    blocked: list[Row] = field(default_factory=list)
    devices: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    audit: list[Row] = field(default_factory=list)
    changes: list[Row] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    text: str = FILE
    accounts: list[Row] = field(default_factory=list)
    tokens: list[Row] = field(default_factory=list)
    pending: Row | None = None
    themes: dict[str, dict[str, str]] = field(default_factory=dict)
    theme: str = ""
    texts: dict[str, dict[str, Row]] = field(default_factory=dict)
    device: Row = field(default_factory=lambda: device_row())
    uploaded: bytes = b""  # of a backup
    backup: Row = field(default_factory=dict)  # what backup.preview says that is not in `backup_row`
    bundle: Row | None = None  # what device.check says of the bundle that was uploaded

    def populate(self, clients: int) -> None:
        """Fill the tables with what a hotel might have."""
        rng = random.Random(1)
        self.clients = [client_row(number, rng) for number in range(clients)]
        self.warnings = [
            "RADIUS server backup answers without Message-Authenticator: update it, or set it to "
            "message_authenticator 'off' if you know why."
        ]
        self.vouchers_create({"count": 24, "note": "Conference", "validity_s": 86400, "total_bytes": 10**9}, "ada")
        self.vouchers_create({"count": 3, "note": HOSTILE, "alphabet": "letters", "devices": 0}, "otto")
        for number, voucher in enumerate(self.vouchers[:6]):
            voucher["state"] = ("active", "used-up", "expired", "revoked", "unused", "unused")[number]
            voucher["first_used_unix"] = NOW if number < 3 else None
            voucher["devices"] = ["02:00:5e:00:00:01"] if number < 2 else []
        self.users_add({"username": "alice", "note": "Reception", "devices": 3}, "ada")
        self.users_add({"username": HOSTILE, "note": HOSTILE}, "ada")
        self.blocked = [
            {"mac": "02:00:5e:00:00:99", "zone": "", "note": HOSTILE, "created_by": "ada", "created_unix": NOW}
        ]
        self.devices = [
            {
                "zone": "guests",
                "mac": row["mac"],
                "username": row["username"],
                "method": "password",
                "since_unix": NOW,
                "until_unix": NOW + 86400,
            }
            for row in self.clients[:20]
        ]
        kinds = ("lease_bound", "login_requested", "gate_opened", "limit_reached", "gate_closed")
        self.events = [
            {
                "at_unix": NOW + number,
                "at": float(number),
                "zone": "guests",
                "mac": self.clients[number % clients]["mac"] if clients else "",
                "ip": "10.1.0.2",
                "kind": kinds[number % 5],
                "text": f"what happened, number {number} {HOSTILE if number % 7 == 0 else ''}",
            }
            for number in range(400 if clients else 0)
        ]
        self.audit = [
            {
                "at_unix": NOW + number,
                "who": "ada",
                "via": "web",
                "address": "192.0.2.7",
                "method": "sessions.kick",
                "summary": f"client={HOSTILE}",
                "outcome": "done" if number % 4 else "denied",
            }
            for number in range(130)
        ]
        self.accounts = [
            {
                "name": name,
                "role": role,
                "created_unix": NOW,
                "disabled": name == "vera",
                "totp": name == "otto",
                "recovery_left": 8,
                "sessions": 1,
            }
            for name, role in (("ada", "administrator"), ("otto", "operator"), ("vera", "viewer"))
        ]

    def answer(self, method: str, params: Params, who: str) -> JsonValue:
        """The answer of a control method."""
        handler: Callable[[Params, str], object] | None = getattr(self, method.replace(".", "_"), None)
        if handler is None:
            raise ControlError("unknown_method", f"there is no method {method}")
        try:
            return cast(JsonValue, handler(params, who))
        except KeyError as err:
            raise ControlError("bad_params", f"{err.args[0]} must be given") from None

    # -- the whole --------------------------------------------------------------------------------------------------

    def status(self, params: Params, who: str) -> object:
        online = sum(row["state"] == "online" for row in self.clients)
        zone = {
            "name": "guests",
            "interface": "wlan0",
            "address": "10.1.0.1/16",
            "leases": len(self.clients),
            "pool": 16000,
            "online": online,
            "held": len(self.clients) - online,
        }
        server = {
            "server": "main",
            "address": "192.0.2.10",
            "port": 1812,
            "purpose": "auth",
            "breaker": "closed",
            "rtt_p95_s": 0.012,
        }
        return {
            "version": "0.1.0",
            "uptime_s": 93784,
            "zones": [zone],
            "sessions": {"online": online, "total": len(self.clients)},
            "radius": [server, {**server, "server": "backup", "breaker": "open"}] if self.clients else [],
            "datapath": {},
            "journal": {"size_bytes": 123456, "records": 1000, "waiting": 0, "lost": 0},
            "warnings": self.warnings,
            "memory_rss_bytes": 47_000_000,
            "memory_total_bytes": 512_000_000,
            "memory_available_bytes": 230_000_000,
            "disk_total_bytes": 120_000_000,
            "disk_free_bytes": 31_000_000,
            "rate_up_bps": 1_200_000,
            "rate_down_bps": 23_500_000,
            "clock_set": True,
        }

    def device_status(self, params: Params, who: str) -> object:
        return {**self.device, "bundle": self.bundle is not None}

    def device_check(self, params: Params, who: str) -> object:
        if self.bundle is None:
            raise ControlError("conflict", "there is no bundle; hand one over first")
        if "refusal" in self.bundle:
            raise ControlError("conflict", self.bundle["refusal"])
        return self.bundle

    def device_upgrade(self, params: Params, who: str) -> object:
        self.device["installing"] = True
        self.device["under_way"] = {"phase": "writing", "done_bytes": 30_000_000, "total_bytes": 90_000_000}
        return {"started": True}

    def device_discard(self, params: Params, who: str) -> object:
        self.bundle = None
        return {"done": True}

    def device_restart(self, params: Params, who: str) -> object:
        return {"restarting": True}

    def device_reset(self, params: Params, who: str) -> object:
        if params["hostname"] != self.device["hostname"]:
            raise ControlError("conflict", "this device is called gate: give that name to confirm")
        return {"restarting": True}

    def history_read(self, params: Params, who: str) -> object:
        rng = random.Random(2)
        count = 1440 if self.clients else 0
        return {
            "first_unix": NOW,
            "step_s": 60,
            "series": {
                "online": [60 + number % 300 / 5 for number in range(count)],
                "upload_bytes": [
                    rng.randrange(4_000_000) if number < 400 or number > 500 else None for number in range(count)
                ],
                "download_bytes": [rng.randrange(30_000_000) for _ in range(count)],
                "logins": [rng.randrange(3) for _ in range(count)],
            },
        }

    def doctor_run(self, params: Params, who: str) -> object:
        return {
            "rows": [
                {"check": "interface wlan0", "state": "ok", "text": "It is up and has 10.1.0.1/16.", "remedy": ""},
                {"check": "clock", "state": "warn", "text": "It was never set.", "remedy": "Set up NTP."},
                {"check": "DNS", "state": "fail", "text": f"No answer {HOSTILE}", "remedy": "See who holds port 53."},
                {"check": "certificate", "state": "skipped", "text": "None is configured.", "remedy": ""},
            ]
        }

    def events_list(self, params: Params, who: str) -> object:
        client, limit = params.get("client"), int(cast(int, params.get("limit", 100)))
        rows = [row for row in self.events if client in (None, row["mac"], row["ip"])]
        return {"rows": rows[-limit:]}

    # -- clients ----------------------------------------------------------------------------------------------------

    def sessions_list(self, params: Params, who: str) -> object:
        search = str(params.get("search", ""))
        rows = [
            row
            for row in self.clients
            if params.get("state") in (None, row["state"])
            and params.get("zone") in (None, row["zone"])
            and (not search or search in f"{row['mac']} {row['ip']} {row['hostname']} {row['username']}")
        ]
        key = {"since": "since_s", "bytes": "download_bytes", "rate": "rate_down_bps", "left": "seconds_left"}
        column = key.get(str(params.get("sort", "ip")), str(params.get("sort", "ip")))
        rows.sort(key=lambda row: (row[column] is None, row[column]), reverse=bool(params.get("descending")))
        offset, limit = int(cast(int, params.get("offset", 0))), int(cast(int, params.get("limit", 100)))
        return {"total": len(rows), "rows": rows[offset : offset + limit]}

    def _client(self, params: Params) -> Row:
        for row in self.clients:
            if params["client"] in (row["mac"], row["ip"], row["username"], row["session_id"]):
                return row
        raise ControlError("not_found", f"no client {params['client']}")

    def sessions_show(self, params: Params, who: str) -> object:
        row = self._client(params)
        ends = {"terminate_unix": NOW + 7200.5} if row["state"] == "online" else {}
        return {"limits": {"session_time_s": 3600, "download_bps": 5_000_000, **ends}, **row}

    def sessions_kick(self, params: Params, who: str) -> object:
        row = self._client(params)
        ended = row["state"] == "online"
        row.update(state="held", username="", since_s=None)
        return {"ended": int(ended)}

    def sessions_change(self, params: Params, who: str) -> object:
        row = self._client(params)
        if row["state"] != "online":
            raise ControlError("conflict", "this client is not online; there is nothing to change")
        if "extend_s" in params:
            row["seconds_left"] = (row["seconds_left"] or 0) + cast(int, params["extend_s"])
        limits = {name: value for name, value in params.items() if name not in ("client", "extend_s") and value}
        row["limits"] = {**row.get("limits", {}), **limits}
        return {**row, "changed": 1}

    def sessions_authorize(self, params: Params, who: str) -> object:
        self._client(params).update(state="online", username="guest", since_s=0)
        return {"result": "success", "message": ""}

    def clients_block(self, params: Params, who: str) -> object:
        if str(params["mac"]).count(":") != 5:
            raise ControlError("bad_params", f"mac: {params['mac']!r} is not a MAC address")
        note, zone = params.get("note", ""), params.get("zone", "")
        self.blocked.append({"mac": params["mac"], "zone": zone, "note": note, "created_by": who, "created_unix": NOW})
        return {"mac": params["mac"], "zone": zone, "ended": 0}

    def clients_unblock(self, params: Params, who: str) -> object:
        before = len(self.blocked)
        self.blocked = [row for row in self.blocked if row["mac"] != params["mac"]]
        if len(self.blocked) == before:
            raise ControlError("not_found", f"{params['mac']} is not blocked")
        return {"mac": params["mac"], "unblocked": 1}

    def clients_blocked(self, params: Params, who: str) -> object:
        return {"rows": self.blocked}

    def leases_list(self, params: Params, who: str) -> object:
        return {"rows": []}

    # -- vouchers, users, devices -----------------------------------------------------------------------------------

    def vouchers_create(self, params: Params, who: str) -> object:
        number, count = len(self.batches) + 1, int(cast(int, params["count"]))
        batch = {
            "batch": number,
            "created_unix": NOW,
            "created_by": who,
            "count": count,
            "used": 0,
            "revoked": 0,
            "note": params.get("note", ""),
            "zone": params.get("zone", ""),
            "validity_s": params.get("validity_s"),
            "expires_unix": params.get("expires_unix"),
            "devices": params.get("devices", 1) or None,
            "limits": {name: value for name, value in params.items() if name.endswith(("_bps", "_bytes", "_time_s"))},
        }
        self.batches.insert(0, batch)
        fresh = [
            {
                "id": f"{number}-{one}",
                "code": f"{number:04d}-{one * 7919 % 10000:04d}",
                "batch": number,
                "state": "unused",
                "first_used_unix": None,
                "ends_unix": None,
                "devices": [],
                "online": 0,
                "used_s": 0,
                "upload_bytes": 0,
                "download_bytes": 0,
                "note": batch["note"],
            }
            for one in range(1, count + 1)
        ]
        self.vouchers += fresh
        return {"batch": number, "count": count, "codes": [row["code"] for row in fresh], "login_url": LOGIN_URL}

    def vouchers_batches(self, params: Params, who: str) -> object:
        return {"rows": self.batches, "login_url": LOGIN_URL}

    def vouchers_list(self, params: Params, who: str) -> object:
        search = str(params.get("search", ""))
        rows = [
            row
            for row in self.vouchers
            if params.get("batch") in (None, row["batch"])
            and params.get("state") in (None, row["state"])
            and (not search or search in row["code"] or search in row["note"])
        ]
        offset, limit = int(cast(int, params.get("offset", 0))), int(cast(int, params.get("limit", 100)))
        return {"total": len(rows), "rows": rows[offset : offset + limit], "login_url": LOGIN_URL}

    def vouchers_revoke(self, params: Params, who: str) -> object:
        rows = [row for row in self.vouchers if params.get("id") == row["id"] or params.get("batch") == row["batch"]]
        if not rows:
            raise ControlError("not_found", "there is no such voucher")
        for row in rows:
            row["state"] = "revoked"
        return {"revoked": len(rows), "ended": 0}

    def vouchers_remove(self, params: Params, who: str) -> object:
        if not any(row["batch"] == params["batch"] for row in self.batches):
            raise ControlError("not_found", f"there is no batch {params['batch']}")
        self.batches = [row for row in self.batches if row["batch"] != params["batch"]]
        self.vouchers = [row for row in self.vouchers if row["batch"] != params["batch"]]
        return {"batch": params["batch"], "ended": 0}

    def themes_list(self, params: Params, who: str) -> object:
        rows = [
            {"theme": name, "version": "1", "size_bytes": 9, "files": [*files], "zones": []}
            for name, files in self.themes.items()
        ]
        return {"rows": rows, "zones": {"guests": self.theme}}

    def themes_preview(self, params: Params, who: str) -> object:
        if params["theme"] not in self.themes:
            raise ControlError("not_found", f"there is no theme {params['theme']!r}")
        return {"files": self.themes[str(params["theme"])]}

    def themes_store(self, params: Params, who: str) -> object:
        if params["data"] == base64.b64encode(b"bad").decode():
            raise ControlError("bad_params", "layout.html: has <script>\nstyle.css: imports another sheet")
        self.themes[str(params["theme"])] = {"style.css": str(params["data"])}
        return {"theme": params["theme"], "version": "1", "size_bytes": 9, "files": ["style.css"], "zones": []}

    def themes_remove(self, params: Params, who: str) -> object:
        del self.themes[str(params["theme"])]
        return {"theme": params["theme"]}

    def themes_activate(self, params: Params, who: str) -> object:
        self.theme = str(params["theme"])
        return {"zone": params["zone"], "theme": self.theme}

    def themes_reset(self, params: Params, who: str) -> object:
        self.theme = ""
        return {"zone": params["zone"], "theme": ""}

    def themes_texts(self, params: Params, who: str) -> object:
        return {"texts": self.texts}

    def themes_text(self, params: Params, who: str) -> object:
        language = self.texts.setdefault(str(params.get("zone", "")), {}).setdefault(str(params["language"]), {})
        language.pop(str(params["key"]), None)
        if "text" in params:
            language[str(params["key"])] = params["text"]
        return {"text": params.get("text")}

    def users_add(self, params: Params, who: str) -> object:
        if any(row["username"] == params["username"] for row in self.users):
            raise ControlError("conflict", f"there is a user {params['username']} already")
        row = {name: value for name, value in params.items() if name != "password"}
        self.users.append({"created_unix": NOW, "disabled": False, "note": "", **row})
        return {"username": params["username"]}

    def _user(self, params: Params) -> Row:
        for row in self.users:
            if row["username"] == params["username"]:
                return row
        raise ControlError("not_found", f"there is no local account {params['username']!r}")

    def users_list(self, params: Params, who: str) -> object:
        found = [row for row in self.users if params.get("username") in (None, row["username"])]
        return part_of(found, params, ("username", "note"), ("username", "disabled", "created_unix"))

    def users_change(self, params: Params, who: str) -> object:
        row = self._user(params)
        row.update({name: value or None for name, value in params.items() if name not in ("username", "end_sessions")})
        return {**row, "ended": 0}

    def users_passwd(self, params: Params, who: str) -> object:
        return {"username": self._user(params)["username"]}

    def users_remove(self, params: Params, who: str) -> object:
        self.users.remove(self._user(params))
        return {"username": params["username"]}

    def devices_list(self, params: Params, who: str) -> object:
        found = [row for row in self.devices if params.get("username") in (None, row["username"])]
        return part_of(found, params, ("mac", "username", "zone"), ("mac", "username", "since_unix"))

    def devices_forget(self, params: Params, who: str) -> object:
        before = len(self.devices)
        self.devices = [
            row for row in self.devices if row["mac"] != params.get("mac") and row["username"] != params.get("username")
        ]
        return {"forgotten": before - len(self.devices)}

    # -- configuration ----------------------------------------------------------------------------------------------

    def config_text(self, params: Params, who: str) -> object:
        return {"text": self.text, "version": str(len(self.changes))}

    def config_schema(self, params: Params, who: str) -> object:
        return {"sections": SCHEMA}

    def config_show(self, params: Params, who: str) -> object:
        shown = {"section": "postern", "name": "", "unit": "", "doc": ""}
        zone = {"section": "zone", "name": "guests", "unit": "", "doc": ""}
        return {
            "rows": [
                {**shown, "option": "log_level", "value": "info", "source": "postern:2"},
                {**shown, "option": "enabled", "value": "1", "source": "default"},
                {**zone, "option": "ssid", "value": "Guest WiFi", "source": "postern:5"},
                {**zone, "option": "method", "value": "click", "source": "postern:6"},
                {**zone, "option": "lease_time", "value": "3600", "source": "default"},
                {**zone, "option": "radius_secret", "value": "…", "source": "postern:7"},
            ]
        }

    def config_preview(self, params: Params, who: str) -> object:
        text = self._wished(params)
        diff = "\n".join(difflib.unified_diff(self.text.split("\n"), text.split("\n"), "now", "then", lineterm="", n=2))
        problems = ["zone 'guests', option method: 'nonsense' is not a method"] if "nonsense" in text else []
        cuts_off = "cut" in text
        return {
            "diff": diff,
            "problems": problems,
            "changes": ["zone guests: another ssid"],
            "cuts_off": cuts_off,
            "version": str(len(self.changes)),
        }

    def _wished(self, params: Params) -> str:
        if "text" in params:
            return str(params["text"])
        changes = cast(list[Row], params["changes"])
        return self.text + "".join(
            f"\toption {one.get('option')} '{' '.join(one.get('values', []))}'\n" for one in changes
        )

    def config_apply(self, params: Params, who: str) -> object:
        if params["version"] != str(len(self.changes)):
            raise ControlError("conflict", "the configuration was changed meanwhile; look at the difference again")
        text = self._wished(params)
        waits = "cut" in text
        number = len(self.changes) + 1
        state = "pending" if waits else "applied"
        row = {"change": number, "at_unix": NOW, "by": who, "summary": "zone guests: another ssid", "state": state}
        self.changes.insert(0, row)
        self.pending = {"change": number, "by": who, "left_s": 60} if waits else None
        self.text = text
        return {"change": number, **({"confirm_within_s": 60} if waits else {})}

    def _change(self, params: Params) -> Row:
        for row in self.changes:
            if row["change"] == params["change"]:
                return row
        raise ControlError("not_found", f"there is no change {params['change']}")

    def config_confirm(self, params: Params, who: str) -> object:
        self._change(params).update(state="confirmed")
        self.pending = None
        return {}

    def config_revert(self, params: Params, who: str) -> object:
        self._change(params).update(state="reverted")
        self.pending = None
        return {}

    def config_history(self, params: Params, who: str) -> object:
        return {"rows": self.changes, "pending": self.pending}

    def config_past(self, params: Params, who: str) -> object:
        self._change(params)
        return {"text": self.text, "diff": "--- now\n+++ then\n@@ -1 +1 @@\n-a\n+b"}

    def backup_create(self, params: Params, who: str) -> object:
        return {"data": base64.b64encode(b"backup").decode(), "name": "gate-2026-01-01.backup"}

    def backup_put(self, params: Params, who: str) -> object:
        piece = base64.b64decode(str(params["data"]))
        if params["offset"] == 0:
            self.uploaded = b""
        if params["offset"] != len(self.uploaded):
            raise ControlError("conflict", "go on where it ends")
        self.uploaded += piece
        return {"size": len(self.uploaded)}

    def backup_preview(self, params: Params, who: str) -> object:
        if params["passphrase"] != "a long passphrase":
            raise ControlError("bad_params", "The passphrase is wrong, or the file was changed or cut off.")
        return {**backup_row(), **self.backup}

    def backup_restore(self, params: Params, who: str) -> object:
        if params["ticket"] != backup_row()["ticket"]:
            raise ControlError("not_found", "that was too long ago; begin again")
        return {"restarting": True, "change": None, "confirm_within_s": 300 if self.backup.get("cuts_off") else None}

    def system_timezones(self, params: Params, who: str) -> object:
        return {"current": "Europe/Paris", "names": ["Europe/Paris", "UTC"]}

    def system_timezone(self, params: Params, who: str) -> object:
        return {}

    # -- accounts ---------------------------------------------------------------------------------------------------

    def accounts_list(self, params: Params, who: str) -> object:
        return {"rows": self.accounts}

    def accounts_add(self, params: Params, who: str) -> object:
        if len(str(params["password"])) < 12:
            raise ControlError("bad_params", "The password has too few characters.")
        row = {"name": params["name"], "role": params["role"], "created_unix": NOW, "disabled": False, "totp": False}
        self.accounts.append({**row, "recovery_left": 0, "sessions": 0})
        return row

    def accounts_show(self, params: Params, who: str) -> object:
        none = {"name": who, "totp": False, "recovery_left": 0}
        return next((row for row in self.accounts if row["name"] == params.get("name", who)), none)

    def accounts_change(self, params: Params, who: str) -> object:
        row = next((row for row in self.accounts if row["name"] == params["name"]), None)
        if row is None:
            raise ControlError("not_found", "no such account")
        row.update({name: value for name, value in params.items() if name != "name"})
        return row

    def accounts_remove(self, params: Params, who: str) -> object:
        self.accounts = [row for row in self.accounts if row["name"] != params["name"]]
        return {"name": params["name"]}

    def accounts_passwd(self, params: Params, who: str) -> object:
        if "name" not in params and params.get("current") != "correct horse battery":
            raise ControlError("denied", "The current password is not right.")
        return {"name": who}

    def accounts_totp_begin(self, params: Params, who: str) -> object:
        return {
            "secret": "JBSWY3DPEHPK3PXP",
            "uri": "otpauth://totp/Postern:ada?secret=JBSWY3DPEHPK3PXP&issuer=Postern",
        }

    def accounts_totp_confirm(self, params: Params, who: str) -> object:
        if params["totp"] != "123456":
            raise ControlError("bad_params", "The code is not right; is the clock of the phone?")
        return {"recovery": ["abcd-efgh-ijkl", "mnop-qrst-uvwx"]}

    def accounts_totp_remove(self, params: Params, who: str) -> object:
        return {"name": who, "removed": True}

    def accounts_sessions(self, params: Params, who: str) -> object:
        row = {
            "name": who,
            "address": "192.0.2.7",
            "agent": f"Mozilla/5.0 {HOSTILE}",
            "started_unix": NOW,
            "left_s": 3600,
        }
        return {"rows": [{"id": "a", **row, "current": True}, {"id": "b", **row, "current": False}]}

    def accounts_revoke(self, params: Params, who: str) -> object:
        return {"ended": 1}

    def tokens_list(self, params: Params, who: str) -> object:
        return {"rows": self.tokens}

    def tokens_create(self, params: Params, who: str) -> object:
        row = {"id": f"t{len(self.tokens)}", "owner": who, "created_unix": NOW, **params}
        self.tokens.append({"expires_unix": None, **row})
        return {"id": row["id"], "token": "postern_abcdefghijklmnop"}

    def tokens_revoke(self, params: Params, who: str) -> object:
        if not any(row["id"] == params["id"] for row in self.tokens):
            raise ControlError("not_found", "no such token")
        self.tokens = [row for row in self.tokens if row["id"] != params["id"]]
        return {"id": params["id"]}

    def audit_list(self, params: Params, who: str) -> object:
        offset, limit = int(cast(int, params.get("offset", 0))), int(cast(int, params.get("limit", 100)))
        return {"total": len(self.audit), "rows": self.audit[offset : offset + limit]}


LOGIN_URL = "http://login.postern.lan/?code="
SCHEMA: list[Row] = [
    {
        "type": "postern",
        "repeated": False,
        "doc": "What concerns the whole gateway.",
        "options": [
            {"name": "enabled", "kind": "switch", "list": False, "default": "1", "doc": "Start the gateway."},
            {
                "name": "log_level",
                "kind": "choice",
                "list": False,
                "default": "info",
                "choices": ["debug", "info", "warning", "error"],
                "doc": "How much is logged.",
            },
        ],
    },
    {
        "type": "zone",
        "repeated": True,
        "doc": "A guest network.",
        "options": [
            {"name": "ssid", "kind": "text", "list": False, "default": "", "doc": "Name of the Wi-Fi."},
            {
                "name": "lease_time",
                "kind": "integer",
                "list": False,
                "default": "3600",
                "unit": "s",
                "low": 60,
                "high": 86400,
                "doc": "How long an address is a guest's.",
            },
            {"name": "method", "kind": "text", "list": True, "default": ["click"], "doc": "How guests log in."},
            {"name": "radius_secret", "kind": "secret", "list": False, "default": "", "doc": "A shared secret."},
        ],
    },
]


def device_row() -> Row:
    """An image that was upgraded once."""
    return {
        "version": "0.1.0",
        "build_id": "1a2b3c4d5e6f",
        "packaging": "image",
        "board": "x86_64",
        "slot": "a",
        "start": "good",
        "upgrade": {"state": "committed", "version": "0.1.0", "build_id": "1a2b3c4d5e6f", "slot": "a", "text": ""},
        "hostname": "gate",
        "under_way": None,
        "installing": False,
        "failure": "",
    }


def backup_row() -> Row:
    """What is in a backup."""
    return {
        "ticket": "ticket-1",
        "format": 2,
        "made_unix": NOW,
        "hostname": "old-gate",
        "version": "0.1.0",
        "config_only": False,
        "administrators": ["ada", HOSTILE],
        "tokens": 2,
        "users": 12,
        "batches": 3,
        "vouchers": 120,
        "devices": 40,
        "themes": ["hotel"],
        "certificate": True,
        "changes": ["zone 'guests': ssid from 'Guest WiFi' to 'Hotel'", "radius: timeout from 3.0 s to 5.0 s"],
        "problems": [],
        "cuts_off": False,
    }


def bundle_row() -> Row:
    """A bundle that is newer than the image."""
    return {
        "version": "0.2.0",
        "build_id": "0f9e8d7c6b5a",
        "board": "x86_64",
        "built_unix": NOW,
        "size_bytes": 98_000_000,
        "older": False,
    }


def client_row(number: int, rng: random.Random) -> Row:
    """One guest."""
    online = rng.random() < 0.8
    mac = f"{'02' if number % 3 else '00'}:00:5e:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    return {
        "zone": "guests",
        "mac": mac,
        "mac_is_random": number % 3 != 0,
        "ip": f"10.1.{number // 250}.{number % 250 + 2}",
        "ipv6": [f"2001:db8::{number:x}"] if number % 4 == 0 else [],
        "hostname": rng.choice(("iPhone", "Pixel-8", "laptop", HOSTILE, "", "a-very-long-hostname-of-a-television")),
        "state": "online" if online else "held",
        "username": rng.choice(("alice", "bob", "room 12", "")) if online else "",
        "method": "password" if online else "",
        "session_id": f"67a1b2c3-{number:08x}" if online else "",
        "client_number": number + 1,
        "since_s": rng.randrange(86400) if online else None,
        "session_start_unix": NOW if online else None,
        "seconds_left": rng.randrange(86400) if online and number % 2 else None,
        "idle_s": rng.randrange(600) if online else None,
        "upload_bytes": rng.randrange(10**9) if online else 0,
        "download_bytes": rng.randrange(10**10) if online else 0,
        "bytes_left": rng.randrange(10**9) if number % 5 == 0 else None,
        "idle_limit_s": 900,
        "rate_up_bps": rng.randrange(2 * 10**6) if online else 0,
        "rate_down_bps": rng.randrange(20 * 10**6) if online else 0,
    }
