"""A web page on this machine alone: a photo or a video goes in, its points come out, drawn and to download.

Knows what the page shows and what a visitor may ask; how points are found stands in the rooms below. The
page asks no other machine for anything, and what was uploaded and found goes when the server ends.
"""

from __future__ import annotations

import html
import os
import signal
import socket
import tempfile
import traceback
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from landmarks_fastai.data.source import default_cache
from landmarks_fastai.data.synthetic import draw_picture
from landmarks_fastai.drawing import save_png
from landmarks_fastai.errors import LandmarksError, RunError, UserError, counted
from landmarks_fastai.images import read_image
from landmarks_fastai.inference.faces import Detector, open_detector
from landmarks_fastai.inference.modelfile import MODEL_NAME
from landmarks_fastai.inference.predictor import Landmarks, Predictor
from landmarks_fastai.inference.tracking import Tracker
from landmarks_fastai.schema import Schema
from landmarks_fastai.tasks.points import named_points
from landmarks_fastai.tasks.predict import (
    AUTO,
    Found,
    detector_for,
    draw_faces,
    find_faces,
    write_points_csv,
    write_points_json,
)
from landmarks_fastai.tasks.video import annotate_video

if TYPE_CHECKING:
    import gradio as gr
    from uvicorn import Server

HOST = "127.0.0.1"
PORT = 7860

MEGABYTE = 2**20
"""As gradio counts, when it refuses a file."""

KEPT = 3600
"""Seconds after which what was uploaded and found is removed while the server still runs."""

WAITING = 16
"""Jobs that may wait their turn; a visitor beyond is told that the page is busy."""

COLUMNS = ("face", "point", "x", "y", "confidence")

PHOTO_INVITATION = "Drop a photo, take one, or choose an example."
VIDEO_INVITATION = "Drop a video, record one, or choose the example, and press the button."

ASTRONAUT = Path(__file__).parents[1] / "docs" / "astronaut.jpg"
"""Public domain, but not part of the installed package."""

POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
"""What the page may load: with this, a browser asks no other machine, whatever gradio's scripts say."""

STYLE = """
.gradio-container .main {max-width: 1100px !important; margin: 0 auto !important}
.plain .html-container {padding: 0}
#head h1 {font-size: 1.5rem; font-weight: 650; margin: 0}
#head p {margin: .2rem 0 0; color: var(--body-text-color-subdued)}
.note {margin: 0; padding: .6rem .8rem; border-radius: 6px; border-left: 4px solid #0072B2;
  background: var(--background-fill-secondary); overflow-wrap: anywhere}
.note.problem {border-color: #D55E00}
#video-note:has(.pending) {min-height: 5.5rem}
#video-note .html-container.pending, #video-note .wrap:has(.progress-bar) .meta-text {visibility: hidden}
:is(#video, #video-drawing) video {max-height: 340px}
#photo-drawing img {max-height: 480px}
/* to cut a video, gradio's script would fetch another one from elsewhere */
#video button:is([title^="Trim"], [title^="Reset"]) {display: none}
.prose .numbers {max-height: 26rem; overflow: auto; border-radius: 6px;
  border: 1px solid var(--border-color-primary)}
.prose .numbers table {width: 100%; margin: 0; font-size: .85rem; border: 0; border-collapse: separate;
  border-spacing: 0}
.prose .numbers :is(th, td) {padding: .3rem .6rem; text-align: left; border: 0}
.prose .numbers td {border-top: 1px solid var(--border-color-primary)}
.prose .numbers th {position: sticky; top: 0; background: var(--background-fill-secondary);
  font-weight: 600}
.prose .numbers :is(th, td):nth-child(n+3) {text-align: right; font-variant-numeric: tabular-nums}
@media (max-width: 500px) {
  .prose .numbers table {font-size: .75rem}
  .prose .numbers :is(th, td) {padding: .3rem}
}
"""

HEAD = """
<h1>landmarks-fastai</h1>
<p>Find the landmarks of faces. Photos and videos stay on this machine.</p>
"""


@dataclass(frozen=True)
class Limits:
    """What a visitor may ask for: how large a file, and how long a video."""

    megabytes: float = 200
    seconds: float = 60


@dataclass(frozen=True)
class Answer:
    """What was found in a photo or a video.

    Parameters
    ----------
    note
        A sentence about it.
    drawing, csv, json
        The files to look at and to download; None where there is no face.
    rows
        Of a photo: one for each point, as `COLUMNS`; an unknown confidence is "–".
    """

    note: str
    drawing: Path | None = None
    csv: Path | None = None
    json: Path | None = None
    rows: Sequence[Sequence[str]] = ()


class Desk:
    """Answers for the page, one photo or video after the other.

    Each model and detector is opened when it is first needed, and kept.

    Parameters
    ----------
    models
        Run folders or model files, at least one; the first is chosen at first.
    detector
        As `detector_for` takes it.
    limits
        What is refused.
    """

    def __init__(self, models: Sequence[Path], detector: str = AUTO, limits: Limits | None = None) -> None:
        self.models = [str(path.parent if path.name == MODEL_NAME else path) for path in models]
        """By what the page calls them: a run by its folder."""
        self.limits = limits or Limits()
        self._detector = detector
        self._predictors: dict[str, Predictor] = {}
        self._detectors: dict[str, Detector] = {}
        self._busy = Lock()
        self._closing = False

    def photo(self, path: Path, model: str, out: Path) -> Answer:
        """Find, draw and write down the points of a photo.

        Parameters
        ----------
        path
            The photo.
        model
            One of `models`.
        out
            Folder for the files.

        Raises
        ------
        UserError
            If the photo can't be used; it is named without its folder, which means nothing to a visitor.
        RunError
            If a file can't be written.
        """
        with self._busy, _named_alone(path.parent, out):
            self._check_size(path)
            picture = read_image(path)
            predictor, detector = self.open(model)
            faces = find_faces(predictor, picture, detector)
            if not len(faces.points):
                return _no_face(path)
            drawing, csv, json = out / f"{path.stem}_points.png", out / "points.csv", out / "points.json"
            save_png(drawing, draw_faces(picture, faces, predictor.schema))
            height, width = picture.shape[:2]
            found = Found(Path(path.name), (width, height), faces, drawing)
            write_points_csv(csv, [found], predictor)
            write_points_json(json, [found], predictor)
        note = f"{path.name}: {counted(len(faces.points), 'face')}, {width} × {height} px."
        if np.isnan(faces.confidence).all():
            note += " This model was trained without confidence."
        return Answer(note, drawing, csv, json, list(_rows(faces, predictor.schema)))

    def video(
        self, path: Path, model: str, out: Path, progress: Callable[[int, int | None], None] | None = None
    ) -> Answer:
        """Follow the faces of a video, draw and write down their points; for the rest see `photo`.

        Raises
        ------
        UserError
            If the video can't be used, or is longer than `Limits` allow.
        RunError
            If a file can't be written.
        """

        def step(done: int, expected: int | None) -> None:
            if self._closing:
                raise RunError(f"{path.name}: not finished, since the page ends")
            if progress is not None:
                progress(done, expected)

        with self._busy, _named_alone(path.parent, out):
            self._check_size(path)
            length = self._length(path)
            predictor, detector = self.open(model)
            drawing = out / f"{path.stem}_points.mp4"
            csv, json = out / "points.csv", out / "points.json"
            follow = detector_for(self._detector, predictor.schema) != "none"
            outcome = annotate_video(
                path,
                drawing,
                Tracker(predictor, detector, follow=follow),
                predictor.schema,
                end=self.limits.seconds,
                points=(csv, json),
                progress=step,
            )
        if not outcome.faces:
            return _no_face(path)
        note = f"{path.name}: {counted(outcome.faces, 'face')} in {counted(outcome.frames, 'frame')}."
        if outcome.damage is not None:
            note += f" The file is damaged and could be read up to {outcome.seconds:.1f} s."
        if length is None:
            note += f" At most its first {self.limits.seconds:g} s were looked at."
        return Answer(note, drawing, csv, json)

    def close(self) -> None:
        """End what is being answered, and wait for its end."""
        self._closing = True
        with self._busy:
            pass

    def open(self, model: str) -> tuple[Predictor, Detector]:
        """Open one of `models`, and the detector for it.

        Raises
        ------
        UserError, RunError
            If there is no such model, or as `Predictor.open` and `open_detector`.
        """
        if model not in self.models:
            raise UserError("no such model; choose one from the list")
        if model not in self._predictors:
            self._predictors[model] = Predictor.open(model)
        predictor = self._predictors[model]
        name = detector_for(self._detector, predictor.schema)
        if name not in self._detectors:
            self._detectors[name] = open_detector(name, default_cache())
        return predictor, self._detectors[name]

    def _check_size(self, path: Path) -> None:
        size, most = path.stat().st_size / MEGABYTE, self.limits.megabytes
        if size > most:
            raise UserError(f"{path.name}: {size:.1f} MB, and at most {most:g} MB are taken; make it smaller")

    def _length(self, path: Path) -> Fraction | None:
        """Return a video's length in seconds, None where it doesn't say; refuse one that is too long."""
        from landmarks_fastai.videofile import VideoReader

        with VideoReader(path) as reader:
            length, most = reader.duration, self.limits.seconds
        if length is not None and length > most:
            raise UserError(
                f"{path.name}: {float(length):.2f} s long, and at most {most:g} s are taken; cut it first"
            )
        return length


def serve(
    models: Sequence[Path], *, detector: str = AUTO, port: int = PORT, open_browser: bool = False
) -> None:
    """Serve the page on this machine alone, and print its address, until Ctrl-C ends it.

    Parameters
    ----------
    models, detector
        As `Desk` takes them.
    port
        Of 127.0.0.1; 0 takes a free one.
    open_browser
        Show the page in the user's browser.

    Raises
    ------
    UserError
        If gradio is not installed, or the first model can't be opened.
    RunError
        If the port is taken.
    """
    desk = Desk(models, detector)
    desk.open(desk.models[0])  # so that the first photo need not wait for it
    with listen(port) as door, tempfile.TemporaryDirectory(prefix="landmarks-fastai-") as folder:
        server = page_server(desk, Path(folder))
        address = f"http://{HOST}:{door.getsockname()[1]}"
        # the door is open already: whoever knocks before the server runs waits a moment
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        if open_browser:
            webbrowser.open(address)
        # ended politely from outside, it takes its temporary folder along too
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with suppress(KeyboardInterrupt):
                server.run(sockets=[door])
        finally:
            desk.close()  # a video that went on would write where nothing is any more


def listen(port: int) -> socket.socket:
    """Take a port of this machine, which no other machine can reach.

    Raises
    ------
    RunError
        If it is taken, or may not be used.
    """
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise RunError(
            f"--port {port}: can't be used ({error.strerror}); choose another one, such as {PORT + 1}"
        ) from error


def page_server(desk: Desk, folder: Path) -> Server:
    """Make the server of a page; `run(sockets=[…])` starts it, and `should_exit` ends it.

    Not gradio's own `launch`, which first fetches the page through whatever proxy the user has.

    Parameters
    ----------
    desk
        Answers what is asked on the page.
    folder
        An existing one, for the examples, the uploads and the results.

    Raises
    ------
    UserError
        If gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise UserError("the page needs another package: pip install 'landmarks-fastai[web]'") from error
    import uvicorn
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    os.environ["GRADIO_TEMP_DIR"] = str(folder / "gradio")  # there is no other way to tell it
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        _page(desk, folder),
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=round(desk.limits.megabytes * MEGABYTE),
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Default(
            primary_hue=gr.themes.colors.blue,
            font=("system-ui", "sans-serif"),
            font_mono=("ui-monospace", "monospace"),
        ).set(body_text_color_subdued="*neutral_500"),
        css=STYLE,
    )
    # a page elsewhere must not reach this one by a name of its own that leads to 127.0.0.1
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="critical",
            timeout_graceful_shutdown=1,
            headers=[("content-security-policy", POLICY)],
        )
    )


def _page(desk: Desk, folder: Path) -> gr.Blocks:
    import gradio as gr

    page = gr.Blocks(
        title="landmarks-fastai", analytics_enabled=False, fill_width=True, delete_cache=(KEPT // 6, KEPT)
    )
    with page:
        gr.HTML(HEAD, elem_id="head", elem_classes="plain")
        model = gr.Dropdown(desk.models, value=desk.models[0], label="Model", interactive=True)
        with gr.Tab("Photo"):
            _photo_tab(desk, model, folder)
        with gr.Tab("Video"):
            _video_tab(desk, model, folder)
    page.queue(max_size=WAITING)
    return page


def _photo_tab(desk: Desk, model: gr.Dropdown, folder: Path) -> None:
    """Lay out the tab of photos: each new photo, and each other model, is answered at once."""
    import gradio as gr

    with gr.Row():
        with gr.Column():
            photo = gr.Image(
                label=f"Photo, up to {desk.limits.megabytes:g} MB",
                sources=["upload", "webcam", "clipboard"],
                type="filepath",
                image_mode=None,
                height=340,
                buttons=[],
                # left and right are the subject's own, and a mirrored face has them exchanged
                webcam_options=gr.WebcamOptions(mirror=False),
                elem_id="photo",
            )
            _examples(photo, example_photos(folder))
        with gr.Column():
            note = gr.HTML(_note(PHOTO_INVITATION), elem_id="photo-note", elem_classes="plain")
            with gr.Column(visible=False) as results:
                drawing = gr.Image(
                    label="Points",
                    type="filepath",
                    format="png",
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="photo-drawing",
                )
                files = _downloads("Picture", "CSV", "JSON")
                table = gr.HTML(elem_id="photo-table", elem_classes="plain")

    def answer(upload: dict[str, Any] | None, name: str) -> Iterator[dict[Any, Any]]:
        if upload is None:
            yield {note: _note(PHOTO_INVITATION), results: gr.Column(visible=False)}
            return
        path = Path(upload["path"])
        yield {note: _note(f"{path.name}: looking for faces …")}
        # gradio copies what is yielded before it goes on
        with tempfile.TemporaryDirectory(dir=folder) as out:
            found = _asked(lambda: desk.photo(path, name, Path(out)))
            shown = dict(zip(files, (found.drawing, found.csv, found.json), strict=True))
            yield {**_shown(found, note, results, drawing), **shown, table: _table(found.rows)}

    gr.on(
        [photo.change, model.change],
        answer,
        [photo, model],
        [note, results, drawing, *files, table],
        # gradio's own reading of a picture says where its copy lies when it fails
        preprocess=False,
        show_progress="hidden",
        concurrency_id="desk",
        concurrency_limit=1,
        trigger_mode="always_last",
        api_visibility="private",
    )


def _video_tab(desk: Desk, model: gr.Dropdown, folder: Path) -> None:
    """Lay out the tab of videos, which begin by a button: they take their time."""
    import gradio as gr

    with gr.Row():
        with gr.Column():
            video = gr.Video(
                label=f"Video, up to {desk.limits.seconds:g} s and {desk.limits.megabytes:g} MB",
                sources=["upload", "webcam"],
                include_audio=False,
                buttons=[],
                webcam_options=gr.WebcamOptions(mirror=False),
                elem_id="video",
            )
            start = gr.Button("Find the points", variant="primary", interactive=False)
            _examples(video, [example_video(folder)])
        with gr.Column():
            note = gr.HTML(_note(VIDEO_INVITATION), elem_id="video-note", elem_classes="plain")
            with gr.Column(visible=False) as results:
                drawing = gr.Video(label="Points", interactive=False, buttons=[], elem_id="video-drawing")
                files = _downloads("Video", "CSV", "JSON")

    def answer(
        upload: dict[str, Any] | None,
        name: str,
        bar: gr.Progress = gr.Progress(),  # noqa: B008  gradio finds it by its default
    ) -> Iterator[dict[Any, Any]]:
        if upload is None:
            yield {note: _note(VIDEO_INVITATION)}
            return

        def progress(done: int, expected: int | None) -> None:
            if expected is None:
                bar((done, None), unit="frames")
            else:
                bar(min(1.0, done / expected), desc=f"Frame {done:,} of {expected:,}")

        with tempfile.TemporaryDirectory(dir=folder) as out:
            found = _asked(lambda: desk.video(Path(upload["path"]), name, Path(out), progress))
            shown = dict(zip(files, (found.drawing, found.csv, found.json), strict=True))
            yield {**_shown(found, note, results, drawing), **shown}

    start.click(
        answer,
        [video, model],
        [note, results, drawing, *files],
        preprocess=False,
        show_progress_on=[note],
        concurrency_id="desk",
        concurrency_limit=1,
        api_visibility="private",
    )
    video.change(
        lambda upload: {
            start: gr.Button(interactive=upload is not None),
            note: _note(VIDEO_INVITATION),
            results: gr.Column(visible=False),
        },
        video,
        [start, note, results],
        preprocess=False,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )


def _examples(target: gr.Image | gr.Video, paths: Sequence[Path]) -> None:
    import gradio as gr

    gr.Examples(
        [str(path) for path in paths],
        target,
        label="Ready to try",
        cache_examples=False,
        api_visibility="private",
    )


def _downloads(*names: str) -> list[gr.DownloadButton]:
    import gradio as gr

    with gr.Row():
        return [gr.DownloadButton(name, size="sm", min_width=90) for name in names]


def _asked(question: Callable[[], Answer]) -> Answer:
    """Turn what goes wrong into an answer that says so; of a fault of ours, the terminal tells more."""
    try:
        return question()
    except LandmarksError as error:
        return Answer(str(error))
    except Exception as error:
        traceback.print_exception(error)
        return Answer(f"{type(error).__name__}: a fault of ours; the terminal shows where")


def _shown(found: Answer, note: gr.HTML, results: gr.Column, drawing: gr.Image | gr.Video) -> dict[Any, Any]:
    """Return what the parts of a tab show of an answer."""
    import gradio as gr

    any_face = found.drawing is not None
    return {
        note: _note(found.note, problem=not any_face),
        results: gr.Column(visible=any_face),
        drawing: found.drawing,
    }


def example_photos(folder: Path) -> list[Path]:
    """Draw the examples into a folder: two pictures of one face, one of two; and the astronaut, if here."""
    paths = [ASTRONAUT] if ASTRONAUT.is_file() else []
    for number, seeds in enumerate(((12,), (8,), (1, 17)), start=1):
        size = (480 // len(seeds), 400)
        paths.append(folder / f"drawn {number}.png")
        save_png(paths[-1], np.hstack([draw_picture(seed, size)[0] for seed in seeds]))
    return paths


def example_video(folder: Path) -> Path:
    """Write a video of two seconds that goes along a drawn picture."""
    from landmarks_fastai.videowriter import VideoWriter

    path, rate = folder / "drawn.mp4", Fraction(25)
    picture, _ = draw_picture(12, (480, 360))
    with VideoWriter(path, (320, 320), rate, 1 / rate) as writer:
        for index in range(50):
            left, top = round(80 + 20 * np.sin(index / 8)), round(20 + 20 * np.cos(index / 5))
            writer.write(np.ascontiguousarray(picture[top : top + 320, left : left + 320]), index / rate)
    return path


def _note(text: str, problem: bool = False) -> str:
    """Write a sentence for the page; a problem is read out at once by what reads pages to people."""
    kind, role = ("note problem", "alert") if problem else ("note", "status")
    return f'<p class="{kind}" role="{role}">{html.escape(text)}</p>'


def _rows(faces: Landmarks, schema: Schema) -> Iterator[list[str]]:
    """Yield a row of `COLUMNS` for each point, rounded to what an eye can tell apart."""
    for number, (points, confidence) in enumerate(zip(faces.points, faces.confidence, strict=True)):
        for name, x, y, sure in named_points(points, confidence, schema):
            yield [str(number), name, f"{x:.1f}", f"{y:.1f}", "–" if sure is None else f"{sure:.2f}"]


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Write a table of points for the page: gradio's own scrolls sideways where this one fits a phone."""
    head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
    # a long name may be broken behind its underscores
    lines = ("".join(f"<td>{html.escape(cell).replace('_', '_<wbr>')}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="numbers" tabindex="0">{table}</div>'


def _no_face(path: Path) -> Answer:
    return Answer(f"{path.name}: no face found; try one that is larger or more frontal.")


@contextmanager
def _named_alone(*folders: Path) -> Iterator[None]:
    """Take our temporary folders out of what goes wrong inside: a visitor knows files by their names."""
    try:
        yield
    except LandmarksError as error:
        text = str(error)
        # the longest first: one may lie in the other
        for folder in sorted(map(str, folders), key=len, reverse=True):
            text = text.replace(f"{folder}{os.sep}", "")
        raise type(error)(text) from error
