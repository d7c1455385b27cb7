"""`python -m ai_forge` is `ai-forge`."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """The entry point. Nothing is imported before it runs, so that Ctrl-C in the first moments is no traceback."""
    try:
        from ai_forge.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
