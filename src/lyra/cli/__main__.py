"""``python -m lyra.cli``."""

from lyra.cli.start import main

if __name__ == "__main__":
    main()
