"""Built-in landmark schemas, and the schemas that follow from landmark names or are read from files."""

from landmarks_fastai.schemas.bodies import COCO17
from landmarks_fastai.schemas.face_mesh import MEDIAPIPE468, MEDIAPIPE478
from landmarks_fastai.schemas.faces import (
    AFLW19,
    AFLW21,
    CELEBA5,
    COFW29,
    IBUG68,
    INSIGHTFACE106,
    KAGGLE15,
    MTCNN5,
    WFLW98,
)
from landmarks_fastai.schemas.matching import SCHEMAS, canonical_schema, schema_from_names

__all__ = [
    "AFLW19",
    "AFLW21",
    "CELEBA5",
    "COCO17",
    "COFW29",
    "IBUG68",
    "INSIGHTFACE106",
    "KAGGLE15",
    "MEDIAPIPE468",
    "MEDIAPIPE478",
    "MTCNN5",
    "SCHEMAS",
    "WFLW98",
    "canonical_schema",
    "schema_from_names",
]
