"""Entry point of ``python -m landmarks_fastai``."""

from landmarks_fastai.cli import main

if __name__ == "__main__":
    main()
