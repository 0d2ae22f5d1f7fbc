"""``python -m overlayfs_py`` is the command overlayfs-py."""

import sys

from overlayfs_py.cli import main

sys.exit(main())
