"""``python -m lyra.cli``."""

from lyra.cli.main import main

if __name__ == "__main__":
    main()
