"""Files below an installation's share directory: their places, and the roff of manual pages."""

import re
from collections.abc import Mapping
from pathlib import Path

# Where each shell looks for completions of a program.
COMPLETIONS = {
    "bash": "bash-completion/completions/{}",
    "zsh": "zsh/site-functions/_{}",
    "fish": "fish/vendor_completions.d/{}.fish",
}


def write(share: Path, files: Mapping[str, str]) -> None:
    """Write the files (path below `share` to content); print the paths, one a line."""
    for name, content in sorted(files.items()):
        path = share / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        print(name)


def roff(text: str) -> str:
    """Escape text for roff."""
    plain = text.strip("\n").replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", plain, flags=re.MULTILINE)
