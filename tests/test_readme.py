"""Every command of the README is run: small stand-ins lie where it says that your files lie."""

from __future__ import annotations

import io
import re
import shlex
import zipfile
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from PIL import Image

from landmarks_fastai import cli
from landmarks_fastai.data.synthetic import draw_faces, draw_picture
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.videowriter import VideoWriter

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.strip()]
WAITING = ["python cli.py live", "python cli.py web"]
"""These end when somebody ends them; tests/test_live.py and tests/test_web.py try them."""
OURS = [line for line in COMMANDS if line.startswith("python cli.py ") and line not in WAITING]
# the same commands on less: a test is not the place to train for twelve minutes
SMALLER = ["--set", "training.epochs=1", "--set", "model.input_size=32", "--set", "data.limit=40"]


@pytest.fixture(scope="module")
def user_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with all that the README's commands name."""
    folder = tmp_path_factory.mktemp("user")
    picture, _ = draw_picture(1)
    for name in ("img.jpg", "photo.jpg", "photos/one.jpg", "photos/two.webp", "more/three.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(folder / name)
    (folder / "docs").mkdir()
    (folder / "docs" / "astronaut.jpg").write_bytes((ROOT / "docs" / "astronaut.jpg").read_bytes())
    with VideoWriter(folder / "clip.mp4", (640, 480), Fraction(25), Fraction(1, 12800)) as writer:
        for frame in range(10):
            writer.write(picture, Fraction(frame, 25))
    own = draw_faces(40, 9, 64)
    (folder / "images").mkdir()
    lines = ["image," + ",".join(f"{name}_{axis}" for name in own.schema.points for axis in "xy")]
    for i, (image, points) in enumerate(zip(own.images, own.points, strict=True)):
        Image.fromarray(image[..., 0]).save(folder / "images" / f"{i}.png")
        lines.append(f"{i}.png," + ",".join(f"{value:.2f}" for value in points.flatten()))
    (folder / "my_points.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def small_kaggle(user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the drawn faces, in Kaggle's layout, stand for the download."""
    archive = user_folder / "kaggle.zip"
    write_kaggle(draw_faces(40, 7, 96), archive)
    monkeypatch.setattr("landmarks_fastai.data.source.fetch_kaggle", lambda cache, progress=None: archive)


def write_kaggle(table: FaceTable, archive: Path) -> None:
    """Write faces as Kaggle does: CSVs in zips in a zip."""
    names = [f"{name}_{axis}" for name in table.schema.points for axis in "xy"]
    pixels = [" ".join(map(str, image.flatten())) for image in table.images]
    rows = [",".join(f"{value:.3f}" for value in points.flatten()) for points in table.points]
    training = [",".join([*names, "Image"]), *map(",".join, zip(rows, pixels, strict=True))]
    test = ["ImageId,Image", *(f"{i + 1},{image}" for i, image in enumerate(pixels[:3]))]
    asked = [f"{i * len(names) + j + 1},{i + 1},{name}," for i in range(3) for j, name in enumerate(names)]
    with zipfile.ZipFile(archive, "w") as outer:
        for name, lines in (("training", training), ("test", test)):
            inner = io.BytesIO()
            with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as member:
                member.writestr(f"{name}.csv", "\n".join(lines) + "\n")
            outer.writestr(f"{name}.zip", inner.getvalue())
        lookup = ["RowId,ImageId,FeatureName,Location", *asked]
        outer.writestr("IdLookupTable.csv", "\n".join(lookup) + "\n")


@pytest.mark.usefixtures("small_kaggle")
def test_every_command_of_the_readme_runs(
    user_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(user_folder)
    assert len(OURS) >= 18
    # a model must be there first, and fixes only after the audit that begins them
    for line in sorted(OURS, key=lambda line: " train" not in line or "--fixes" in line):
        arguments = shlex.split(line)[2:]
        if arguments[0] == "train" and "--resume" not in arguments:
            arguments += SMALLER
        status = cli.run(arguments)
        captured = capsys.readouterr()
        assert status == 0, f"{line}\n{captured.err}"
        assert "Traceback" not in captured.err
    for made in (
        "runs/default/model.onnx",
        "report/metrics.json",
        "found/points.csv",
        "submission.csv",
        "audit/audit.png",
    ):
        assert (user_folder / made).is_file(), made
    assert (user_folder / "found" / "three_points.png").is_file()
    assert (user_folder / "data-report" / "samples.png").is_file()


def test_the_other_commands_stand_on_what_is_there() -> None:
    rest = [line for line in COMMANDS if line not in OURS]
    assert rest == [
        "conda env create -f environment.yml",
        "conda activate landmarks-fastai",
        "pip install -e '.[web]'",
        "make demo",
        *WAITING,
        "make test",
    ]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == "landmarks-fastai"
    assert {"pip": ["-e .[web]"]} in environment["dependencies"]
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^demo:", makefile, re.MULTILINE)
    assert re.search(r"^test:", makefile, re.MULTILINE)


def test_the_table_of_recipes_names_them_all() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([\w-]+)` \|", readme, re.MULTILINE))
    assert named == {path.stem for path in (ROOT / "configs").glob("*.yaml")}
