"""The layout of the page and its event handlers."""

from __future__ import annotations

import html
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from gradio.data_classes import GradioRootModel

from landmarks_fastai.errors import LandmarksError
from landmarks_fastai.web.examples import example_photos, example_video
from landmarks_fastai.web.service import COLUMNS, Result
from landmarks_fastai.web.uploads import Reference, Uploads
from landmarks_fastai.web.worker_service import WorkerService

HEADER = """
<h1>landmarks-fastai</h1>
<p>Predict landmarks in photos and videos. Files stay on this machine.</p>
"""

PHOTO_PROMPT = "Upload a photo, take one, or choose an example."
VIDEO_PROMPT = "Upload a video, record one, or choose the example; then press the button."

NoteKind = Literal["status", "warning", "problem"]


class AnyValue(GradioRootModel):
    """Value of a component that gradio passes on as it is, instead of opening the file that it names."""

    root: Any


def build_page(service: WorkerService, uploads: Uploads) -> gr.Blocks:
    """Return the page.

    Gradio neither opens nor copies files for it: the event handlers exchange references to the files of
    `uploads` with the browser.

    Parameters
    ----------
    service
        Predicts what the page shows.
    uploads
        The files of the page.
    """
    page = gr.Blocks(
        title="landmarks-fastai",
        analytics_enabled=False,
        fill_width=True,
    )
    with page:
        gr.HTML(HEADER, elem_id="header", elem_classes="plain")
        model = _model_choice(service)
        with gr.Tab("Photo"):
            _photo_tab(service, model, uploads)
        with gr.Tab("Video"):
            _video_tab(service, model, uploads)
        # makes the browser keep a connection, whose end tells that the page was closed
        page.unload(lambda: None)
    page.queue(max_size=service.limits.queue, api_open=False)
    page.state_session_capacity = service.limits.connections
    return page


def _model_choice(service: WorkerService) -> gr.Dropdown:
    """Lay out the list of models, and below it the warning about the selected model."""
    model = gr.Dropdown(service.models, value=service.models[0], label="Model", elem_id="model")
    first = _model_note(service, service.models[0])
    note = gr.HTML(first, visible=bool(first), elem_id="model-note", elem_classes="plain")

    def update(name: str) -> gr.HTML:
        text = _model_note(service, name)
        return gr.HTML(text, visible=bool(text))

    model.change(
        update, model, note, concurrency_limit=None, show_progress="hidden", api_visibility="private"
    )
    return model


def _photo_tab(service: WorkerService, model: gr.Dropdown, uploads: Uploads) -> None:
    """Lay out the tab for photos; choosing a photo or another model starts the prediction."""
    with gr.Row():
        with gr.Column():
            photo = gr.Image(
                label=f"Photo, up to {service.limits.megabytes:g} MB",
                sources=["upload", "webcam", "clipboard"],
                type="filepath",
                image_mode=None,
                height=340,
                buttons=[],
                # in a mirrored image, the subject's left and right would be exchanged
                webcam_options=gr.WebcamOptions(mirror=False),
                elem_id="photo",
            )
            # gradio annotates its own models
            photo.data_model = AnyValue  # type: ignore[assignment]
            _examples(photo, example_photos(uploads.examples), uploads)
        with gr.Column():
            note = gr.HTML(_note(PHOTO_PROMPT), elem_id="photo-note", elem_classes="plain")
            with gr.Column(visible=False) as results:
                drawing = gr.Image(
                    label="Landmarks",
                    type="filepath",
                    format="png",
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="photo-drawing",
                )
                files = _downloads("Image", "CSV", "JSON")
                table = gr.HTML(elem_id="photo-table", elem_classes="plain")

    def predict(upload: object, name: object, request: gr.Request) -> Iterator[dict[Any, Any]]:
        if upload is None:
            yield {note: _note(PHOTO_PROMPT), results: gr.Column(visible=False)}
            return
        yield {note: _note("predicting …")}
        session = str(request.session_hash)

        def run() -> Result:
            path = uploads.find(upload, session)
            with uploads.results(session, "photo") as out:
                return service.predict_photo(path, str(name), out)

        result = _run_or_explain(run)
        yield {
            **_result_updates(result, note, results, drawing, files, uploads),
            table: _html_table(result.rows),
        }

    gr.on(
        [photo.change, model.change],
        predict,
        [photo, model],
        [note, results, drawing, *files, table],
        # gradio must not open the files; see `build_page`
        preprocess=False,
        postprocess=False,
        show_progress="hidden",
        concurrency_limit=1,
        trigger_mode="always_last",
        api_visibility="private",
    )


def _video_tab(service: WorkerService, model: gr.Dropdown, uploads: Uploads) -> None:
    """Lay out the tab for videos; because they take longer, a button starts the prediction."""
    with gr.Row():
        with gr.Column():
            video = gr.Video(
                label=f"Video, up to {service.limits.seconds:g} s and {service.limits.megabytes:g} MB",
                sources=["upload", "webcam"],
                include_audio=False,
                buttons=[],
                webcam_options=gr.WebcamOptions(mirror=False),
                elem_id="video",
            )
            video.data_model = AnyValue  # type: ignore[assignment]
            start = gr.Button("Predict landmarks", variant="primary", interactive=False)
            _examples(video, [example_video(uploads.examples)], uploads)
        with gr.Column():
            note = gr.HTML(_note(VIDEO_PROMPT), elem_id="video-note", elem_classes="plain")
            with gr.Column(visible=False) as results:
                drawing = gr.Video(label="Landmarks", interactive=False, buttons=[], elem_id="video-drawing")
                files = _downloads("Video", "CSV", "JSON")

    def predict(
        upload: object,
        name: object,
        request: gr.Request,
        bar: gr.Progress = gr.Progress(),  # noqa: B008  gradio recognizes it by its default value
    ) -> Iterator[dict[Any, Any]]:
        if upload is None:
            yield {note: _note(VIDEO_PROMPT)}
            return

        def progress(done: int, expected: int | None, unit: str = "frames") -> None:
            if expected is None:
                bar((done, None), unit="frames")
            else:
                bar(min(1.0, done / expected), desc=f"Frame {done:,} of {expected:,}")

        session = str(request.session_hash)

        def run() -> Result:
            path = uploads.find(upload, session)
            with uploads.results(session, "video") as out:
                return service.predict_video(path, str(name), out, progress)

        yield _result_updates(_run_or_explain(run), note, results, drawing, files, uploads)

    start.click(
        predict,
        [video, model],
        [note, results, drawing, *files],
        preprocess=False,
        postprocess=False,
        show_progress_on=[note],
        concurrency_limit=1,
        api_visibility="private",
    )
    video.change(
        lambda upload: {
            start: gr.Button(interactive=upload is not None),
            note: _note(VIDEO_PROMPT),
            results: gr.Column(visible=False),
        },
        video,
        [start, note, results],
        preprocess=False,
        postprocess=False,
        concurrency_limit=None,
        show_progress="hidden",
        api_visibility="private",
    )


def _examples(target: gr.Image | gr.Video, paths: Sequence[Path], uploads: Uploads) -> None:
    """Lay out examples; a click loads one into `target`."""
    references = [uploads.reference(path) for path in paths]
    examples = gr.Dataset(
        components=[target], samples=[[None] for _ in paths], label="Examples", type="index", layout="gallery"
    )
    examples.samples = [[reference] for reference in references]  # gradio would copy files that it is given

    def choose(index: object) -> Reference | None:
        return dict(enumerate(references)).get(index) if isinstance(index, int) else None

    examples.click(
        choose,
        examples,
        target,
        postprocess=False,
        concurrency_limit=None,
        show_progress="hidden",
        api_visibility="private",
    )


def _downloads(*names: str) -> list[gr.DownloadButton]:
    """Lay out a row of download buttons: for the drawing, the CSV and the JSON of a result."""
    with gr.Row():
        return [gr.DownloadButton(name, size="sm", min_width=90) for name in names]


def _run_or_explain(predict: Callable[[], Result]) -> Result:
    """Return the result of `predict`, or the message of its error as a result.

    The traceback of an internal error is printed in the terminal.
    """
    try:
        return predict()
    except LandmarksError as error:
        return Result(str(error))
    except Exception as error:
        traceback.print_exception(error)
        return Result(f"internal error: {type(error).__name__}; the terminal shows the traceback")


def _result_updates(
    result: Result,
    note: gr.HTML,
    results: gr.Column,
    drawing: gr.Image | gr.Video,
    files: Sequence[gr.DownloadButton],
    uploads: Uploads,
) -> dict[Any, Any]:
    """Return the new values of the components of a tab."""
    has_face = result.drawing is not None
    drawn, *landmarks = (
        None if path is None else uploads.reference(path)
        for path in (result.drawing, result.csv, result.json)
    )
    return {
        note: _note(result.message, "status" if has_face else "problem"),
        results: gr.Column(visible=has_face),
        drawing: drawn,
        **dict(zip(files, (drawn, *landmarks), strict=True)),
    }


def _model_note(service: WorkerService, model: str) -> str:
    """Return the warning about a model, or why it cannot be opened, as HTML; empty if there is neither."""
    try:
        warning = service.warning(model)
    except LandmarksError as error:
        return _note(str(error), "problem")
    return "" if warning is None else _note(warning, "warning")


def _note(text: str, kind: NoteKind = "status") -> str:
    """Return a note as HTML; screen readers announce a problem immediately."""
    role = "alert" if kind == "problem" else "status"
    return f'<p class="note {kind}" role="{role}">{html.escape(text)}</p>'


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    """Return the landmarks as an HTML table, which, unlike gradio's own, fits the width of a phone."""
    head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
    # long names may wrap after underscores
    lines = ("".join(f"<td>{html.escape(cell).replace('_', '_<wbr>')}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="landmark-table" tabindex="0">{table}</div>'
