"""The command `video`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

import typer

from landmarks_fastai.cli.options import (
    BackendOption,
    DetectorOption,
    DeviceOption,
    MinConfidenceOption,
    ModelsOption,
    NoSmoothOption,
    OverwriteOption,
    TrustOption,
)
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.utils.text import format_count


def video(
    source: Annotated[Optional[Path], typer.Argument(help="Video file.", metavar="VIDEO")] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(
            "--out",
            help="Video to write: .mp4, .mov or .mkv. Default: predictions/NAME_landmarks.mp4.",
            metavar="VIDEO",
        ),
    ] = None,
    models: ModelsOption = None,
    landmarks: Annotated[
        Optional[Path],
        typer.Option(
            "--landmarks", help="Write the landmarks to this file: .csv, .json or .parquet.", metavar="FILE"
        ),
    ] = None,
    frames: Annotated[
        Optional[Path],
        typer.Option("--frames", help="Write the frames as images to this folder.", metavar="FOLDER"),
    ] = None,
    from_frames: Annotated[
        Optional[Path],
        typer.Option("--from-frames", help="Read the frames from this folder of images.", metavar="FOLDER"),
    ] = None,
    fps: Annotated[
        Optional[float],
        typer.Option(
            "--fps",
            help="Resample to this frame rate; with --from-frames, the frame rate of the images. Default: the"
            " frame times of the source.",
        ),
    ] = None,
    start: Annotated[float, typer.Option("--start", help="Start of the excerpt in seconds.")] = 0.0,
    end: Annotated[
        Optional[float], typer.Option("--end", help="End of the excerpt in seconds (exclusive).")
    ] = None,
    no_draw: Annotated[
        bool, typer.Option("--no-draw", help="Do not draw the landmarks on the frames.")
    ] = False,
    no_smooth: NoSmoothOption = False,
    detector: DetectorOption = "auto",
    min_confidence: MinConfidenceOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    trust_pickle: TrustOption = False,
) -> None:
    """Predict and draw the landmarks in a video.

    Each face keeps its track ID, and its landmarks are smoothed over time.

    For example:

      landmarks-fastai video clip.mp4

      landmarks-fastai video clip.mov --landmarks landmarks.csv --start 10 --end 20 --out part.mp4

      landmarks-fastai video clip.mp4 --frames frames --no-draw

      landmarks-fastai video --from-frames frames --fps 30 --out again.mp4
    """
    path = _check_source(source, from_frames, cut=start != 0 or end is not None)
    if out is None and not no_draw:
        out = Path("predictions") / f"{path.resolve().stem}_landmarks.mp4"
    from landmarks_fastai.cli.models import open_tracker
    from landmarks_fastai.cli.progress import frame_progress
    from landmarks_fastai.commands.video import annotate_video

    only_copied = no_draw and landmarks is None
    if only_copied:
        other_given = no_smooth or trust_pickle or min_confidence is not None or backend != "auto"
        _check_no_model_options(models, detector, device, other_given)
    tracker = (
        None
        if only_copied
        else open_tracker(models, device, trust_pickle, detector, not no_smooth, min_confidence, backend)
    )
    with frame_progress() as progress:
        result = annotate_video(
            path,
            out,
            tracker,
            start=start,
            end=end,
            fps=fps,
            draw=not no_draw,
            landmark_files=[] if landmarks is None else [landmarks],
            frames=frames,
            overwrite=overwrite,
            progress=progress,
        )
    if result.interrupted and not result.frames:
        raise RunError(f"{path}: interrupted before the first frame; nothing was written")
    tracks = "" if tracker is None else f", {format_count(result.tracks, 'track')}"
    written = ", ".join(str(file) for file in (out, landmarks, frames) if file is not None)
    typer.echo(f"{format_count(result.frames, 'frame')}{tracks}: {written}")
    for note in result.notes:
        typer.echo(f"{path}: {note}")
    complete = f"the output is complete up to {result.seconds:.2f} s"
    if result.interrupted:
        raise RunError(f"{path}: interrupted; {complete}")
    if result.damage is not None:
        raise RunError(f"{path}: {result.damage}; {complete}")


def _check_no_model_options(
    models: Sequence[Path] | None, detector: str, device: str, other_given: bool
) -> None:
    """Raise a UserError if an option of the model is given, although no landmarks are predicted."""
    if models or detector != "auto" or device != "auto" or other_given:
        raise UserError(
            "--model, --detector, --min-confidence, --device, --backend, --no-smooth and --trust-pickle have"
            " no effect with --no-draw unless --landmarks is given; remove them"
        )


def _check_source(source: Path | None, from_frames: Path | None, cut: bool) -> Path:
    """Return the video or the folder of frames."""
    if from_frames is None:
        if source is None:
            raise UserError("specify a video, or a folder of images with --from-frames")
        if source.is_dir():
            raise UserError(f"{source}: is a folder; to read its images as frames, use --from-frames")
        return source
    if source is not None:
        raise UserError("specify a video or --from-frames, not both")
    if cut:
        raise UserError(
            "--start and --end select a part of a video; they cannot be combined with --from-frames"
        )
    if not from_frames.is_dir():
        raise UserError(f"--from-frames {from_frames}: no such folder")
    return from_frames
