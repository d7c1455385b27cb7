"""`python -m ai_forge` is `ai-forge`."""

from ai_forge.cli.app import main

if __name__ == "__main__":
    main()
