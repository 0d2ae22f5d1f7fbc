"""What an installation has below its share directory: where it lies, and how a manual page is written."""

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
    """Write every file; prints their paths below `share`, one a line."""
    for name, content in sorted(files.items()):
        path = share / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        print(name)


def roff(text: str) -> str:
    """Text that roff shows as it is."""
    plain = text.strip("\n").replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", plain, flags=re.MULTILINE)
