"""What a schema means for a run: whether images can be mirrored, and how errors are normalized."""

from __future__ import annotations

from landmarks_fastai.config.options import AugmentConfig, StandardAugment
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas.sides import unpaired_names

REMEDY = (
    "name its pair in a schema file (`data --schema-template` writes one, --schema uses it), rename it, or do"
    " not mirror images, with --set augment.flip=0"
)


def check_mirroring(schema: LandmarkSchema, augment: AugmentConfig) -> None:
    """Check that the landmarks of a mirrored image are known.

    Raises
    ------
    UserError
        If images are mirrored, and a landmark says left or right but is in no flip pair.
    """
    if not isinstance(augment, StandardAugment) or not augment.flip:
        return
    unpaired = unpaired_names(schema)
    if unpaired:
        others = f" (and {len(unpaired) - 1} others)" if len(unpaired) > 1 else ""
        raise UserError(
            f"augment.flip: the landmark {unpaired[0][:80]!r}{others} says left or right, but has no partner"
            f" that is exchanged with it in mirrored images; {REMEDY}"
        )


def describe_schema(schema: LandmarkSchema, augment: AugmentConfig) -> list[str]:
    """Return one line for each thing that a run does otherwise than for a face with all flip pairs."""
    lines = []
    if isinstance(augment, StandardAugment) and not augment.flip and unpaired_names(schema):
        lines.append(
            f"images are not mirrored (augment.flip is 0): {unpaired_names(schema)[0]!r} has no partner"
        )
    if schema.eyes is None:
        divisor = "the box around them" if schema.normalizer is None else "the distance that the schema names"
        lines.append(
            f"no eyes among the landmarks: errors are normalized by {divisor}, and predict searches the whole"
            " image instead of detecting faces; if it is a face, name its eyes in a schema file (--schema)"
        )
    return lines


def can_mirror(schema: LandmarkSchema) -> bool:
    """Return True if the landmarks of a mirrored image are known."""
    return bool(schema.flip_pairs) and not unpaired_names(schema)


def without_flip(augment: AugmentConfig) -> AugmentConfig:
    """Return the same augmentation without mirroring."""
    return augment.model_copy(update={"flip": 0.0}) if isinstance(augment, StandardAugment) else augment
