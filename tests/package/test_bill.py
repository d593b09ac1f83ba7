"""The bill of materials, held against the rules of SPDX 2.3 that its readers rely on."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, Final

import pytest

from rootfs.build import _depends
from rootfs.dist import CACHE, bill_of_materials
from rootfs.vendor import libraries

EPOCH: Final = 1_700_000_000
# Clause 6 and 7: what must be there, and nothing that the schema does not know (it allows no other properties).
DOCUMENT: Final = {
    "spdxVersion", "dataLicense", "SPDXID", "name", "documentNamespace", "creationInfo", "packages", "relationships",
}  # fmt: skip
PACKAGE: Final = {
    "SPDXID", "name", "versionInfo", "downloadLocation", "filesAnalyzed", "licenseConcluded", "licenseDeclared",
    "copyrightText",
}  # fmt: skip
PACKAGE_MAY: Final = {"checksums", "externalRefs"}
# Those of the SPDX licence list that we meet; another one is to be looked at before it is carried.
LICENCES: Final = {"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "GPL-2.0-or-later"}


@pytest.fixture(scope="module")
def bill() -> Any:  # Any: JSON
    """The Debian package's bill, as programs read it."""
    return json.loads(bill_of_materials(libraries(CACHE), _depends(), EPOCH))


def test_the_document_says_what_it_must(bill: Any) -> None:
    """Version, licence of the data, name, namespace and who made it when, each in its form."""
    assert bill.keys() == DOCUMENT
    assert (bill["spdxVersion"], bill["dataLicense"], bill["SPDXID"]) == ("SPDX-2.3", "CC0-1.0", "SPDXRef-DOCUMENT")
    # An absolute URI without a fragment (6.5).
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["documentNamespace"])
    assert bill["creationInfo"].keys() == {"created", "creators"}
    datetime.strptime(bill["creationInfo"]["created"], "%Y-%m-%dT%H:%M:%SZ")
    assert all(re.fullmatch(r"(Tool|Organization|Person): \S.*", maker) for maker in bill["creationInfo"]["creators"])


def test_each_package_says_what_it_must(bill: Any) -> None:
    """Identifiers are unique and well formed; licences are expressions of known names, and known for what we carry."""
    ids = [package["SPDXID"] for package in bill["packages"]]
    assert len(set(ids)) == len(ids)
    carried = {library.name for library in libraries(CACHE)} | {"postern"}
    for package in bill["packages"]:
        assert package.keys() - PACKAGE_MAY == PACKAGE
        assert re.fullmatch(r"SPDXRef-[a-zA-Z0-9.-]+", package["SPDXID"])
        assert package["filesAnalyzed"] is False  # else a verification code would be asked for (7.9)
        for licence in (package["licenseConcluded"], package["licenseDeclared"]):
            if package["name"] in carried:
                assert set(re.split(r" (?:AND|OR) ", licence)) <= LICENCES
            else:
                assert licence == "NOASSERTION"
        for sum_ in package.get("checksums", []):
            assert sum_.keys() == {"algorithm", "checksumValue"}
            assert sum_["algorithm"] == "SHA256"
            assert re.fullmatch(r"[0-9a-f]{64}", sum_["checksumValue"])
        for reference in package.get("externalRefs", []):
            assert reference.keys() == {"referenceCategory", "referenceType", "referenceLocator"}
            assert (reference["referenceCategory"], reference["referenceType"]) == ("PACKAGE-MANAGER", "purl")
            assert re.fullmatch(r"pkg:pypi/[a-z0-9.-]+@[\w.]+", reference["referenceLocator"])


def test_relations_lead_to_what_is_listed(bill: Any) -> None:
    """The document describes us; we contain what we carry, and depend on what the distribution has."""
    names = {package["SPDXID"]: package["name"] for package in bill["packages"]}
    told: dict[str, set[str]] = {}
    for relation in bill["relationships"]:
        assert relation.keys() == {"spdxElementId", "relationshipType", "relatedSpdxElement"}
        assert relation["spdxElementId"] in {*names, "SPDXRef-DOCUMENT"}
        told.setdefault(relation["relationshipType"], set()).add(names[relation["relatedSpdxElement"]])
    assert told["DESCRIBES"] == {"postern"}
    assert told["CONTAINS"] == {library.name for library in libraries(CACHE)}
    assert {"python3", "nftables", "systemd"} <= told["DEPENDS_ON"]
    assert set(names.values()) == set().union(*told.values())
