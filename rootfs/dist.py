"""dist/: the artefacts, their hashes, the limits they are held to, and what they are made of.

`manifest.json` and `SHA256SUMS` list everything in dist/; an artefact above its limit fails the build. The bill of
materials is SPDX 2.3, and like everything else it is the same octets for the same source.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rootfs.payload import PROJECT, version
from rootfs.vendor import Library

DIST: Final = PROJECT / "dist"
CACHE: Final = PROJECT / ".cache"
_LISTS: Final = ("SHA256SUMS", "manifest.json")


class TooLarge(Exception):
    """An artefact is above its limit."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """One file of dist/."""

    name: str
    version: str
    size_bytes: int
    sha256: str
    limit_bytes: int


def record(path: Path, limit_bytes: int) -> Artefact:
    """Put an artefact of dist/ into both lists; raises TooLarge when it is above its limit."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    artefact = Artefact(path.name, version(), path.stat().st_size, digest.hexdigest(), limit_bytes)
    if artefact.size_bytes > limit_bytes:
        raise TooLarge(f"{path.name} has {artefact.size_bytes} octets, its limit is {limit_bytes}")
    others = [
        item for item in recorded(path.parent) if item.name != artefact.name and (path.parent / item.name).exists()
    ]
    every = sorted([*others, artefact], key=lambda item: item.name)
    lines = {
        "SHA256SUMS": "".join(f"{item.sha256}  {item.name}\n" for item in every),
        "manifest.json": json.dumps([asdict(item) for item in every], indent=1) + "\n",
    }
    for name, text in lines.items():
        (path.parent / name).write_text(text, encoding="utf-8")
    return artefact


def recorded(directory: Path) -> list[Artefact]:
    """What the manifest of a directory lists."""
    try:
        listed = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return [Artefact(**item) for item in listed]


def bill_of_materials(libraries: list[Library], wanted: list[dict[str, str]], epoch: int) -> str:
    """SPDX 2.3 in JSON: ourselves, the libraries that we carry, and what is `wanted` from a distribution."""
    ours = {"name": "postern", "version": version(), "licence": "MIT", "sha256": ""}
    carried = [
        {
            "name": item.name,
            "version": item.version,
            "licence": item.licence,
            "sha256": item.sha256,
            "purl": f"pkg:pypi/{item.name.replace('_', '-')}@{item.version}",
        }
        for item in libraries
    ]
    packages = [_package(item, index) for index, item in enumerate([ours, *carried, *wanted])]
    name = hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"postern-{version()}",
        "documentNamespace": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, name)}",
        "creationInfo": {
            "created": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": [f"Tool: postern-build-{version()}"],
        },
        "packages": packages,
        "relationships": [
            {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-0"},
            *(
                {
                    "spdxElementId": "SPDXRef-0",
                    "relationshipType": "CONTAINS" if index <= len(carried) else "DEPENDS_ON",
                    "relatedSpdxElement": f"SPDXRef-{index}",
                }
                for index in range(1, len(packages))
            ),
        ],
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _package(item: dict[str, str], index: int) -> dict[str, object]:
    package: dict[str, object] = {
        "SPDXID": f"SPDXRef-{index}",
        "name": item["name"],
        "versionInfo": item["version"],
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": item["licence"],
        "licenseDeclared": item["licence"],
        "copyrightText": "NOASSERTION",
    }
    if item.get("purl"):
        package["externalRefs"] = [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": item["purl"],
            }
        ]
    if item.get("sha256"):
        package["checksums"] = [{"algorithm": "SHA256", "checksumValue": item["sha256"]}]
    return package


@contextmanager
def common_modes() -> Iterator[None]:
    """What is built inside is read by every user of a device, whatever the umask of its builder."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)
