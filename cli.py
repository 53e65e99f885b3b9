"""The command line of a checkout: ``python cli.py train --arch resnet34``."""

from landmarks_fastai.cli import main

if __name__ == "__main__":
    main()
