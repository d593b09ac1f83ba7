"""What every package of Postern contains, whatever its wrapping: our code, the libraries that it carries, launchers.

On a device all of it is a private tree below usr/lib/postern: `gateway` and `webui` are too general as names for the
system's own package directory.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from rootfs.tree import PROGRAM, Tree
from rootfs.vendor import Library, vendored

PROJECT: Final = Path(__file__).parents[1]
HOME: Final = "usr/lib/postern"
DOCUMENTS: Final = "usr/share/doc/postern"

# Program -> the function that it calls. Services are in sbin: nobody starts them by hand.
LAUNCHERS: Final = {
    "usr/bin/postern": "gateway.cli.main",
    "usr/sbin/posternd": "gateway.__main__",
    "usr/sbin/postern-web": "webui.__main__",
    "usr/sbin/postern-worker": "gateway.analysis.worker",
    "usr/sbin/postern-system": "gateway.system.__main__",
    "usr/sbin/postern-trial": "gateway.upgrade.trial",
}

# -I: neither the caller's environment nor its working directory decides what is imported.
_LAUNCHER: Final = """\
#!/usr/bin/python3 -I
import sys

sys.path[:0] = ["/usr/lib/postern", "/usr/lib/postern/vendor"]
from {module} import main

sys.exit(main())
"""


def version() -> str:
    """The version, read from where it stands once."""
    for line in (PROJECT / "gateway" / "__init__.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise ValueError("gateway/__init__.py has no __version__")


def committed() -> list[str]:
    """Every file of the source that git knows, or, outside a clone, everything that is there but what is ignored."""
    done = subprocess.run(
        ["git", "ls-files", "-z"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )
    if done.returncode == 0 and done.stdout:
        return sorted(path for path in done.stdout.split("\0") if path and (PROJECT / path).is_file())
    ignored = {".git", ".venv", ".cache", "dist", "build", "screenshots", "__pycache__", ".mypy_cache", ".ruff_cache"}
    return sorted(
        str(path.relative_to(PROJECT))
        for path in PROJECT.rglob("*")
        if path.is_file() and not ignored & set(path.relative_to(PROJECT).parts)
    )


def program(build_id: str) -> Tree:
    """Our code and its launchers. Sources only: bytecode belongs to one Python, and these serve several."""
    tree = Tree()
    for path in committed():
        if path.startswith(("gateway/", "webui/")) and not path.endswith((".c", ".h", ".pyi")):
            tree.add(f"{HOME}/{path}", (PROJECT / path).read_bytes())
    tree.add(f"{HOME}/gateway/build_id", f"{build_id}\n")
    for path, module in LAUNCHERS.items():
        tree.add(path, _LAUNCHER.format(module=module), PROGRAM)
    return tree


def carried(libraries: list[Library]) -> Tree:
    """The libraries that we carry."""
    tree = Tree()
    for path, entry in vendored(libraries):
        tree.add(f"{HOME}/vendor/{path}", entry.data, entry.mode)
    return tree


def licences(libraries: list[Library]) -> str:
    """The licence texts of everything in the package, one after the other."""
    parts = [f"Postern\n{'=' * 7}\n\n{(PROJECT / 'LICENSE').read_text(encoding='utf-8')}"]
    for library in libraries:
        title = f"{library.name} {library.version} ({library.licence})"
        texts = "\n\n".join(f"{name}:\n\n{text.decode('utf-8', 'replace')}" for name, text in library.licence_texts)
        parts.append(f"{title}\n{'=' * len(title)}\n\n{texts}")
    return "\n\n".join(parts)
