"""``python -m landmarks_fastai`` is the same app."""

from landmarks_fastai.cli import main

if __name__ == "__main__":
    main()
