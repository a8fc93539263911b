"""Face crops in TFRecord files, read in a tf.data graph; `data.records` writes them."""

import tensorflow as tf

# What tf.data raises for shards that are cut short, hold other bytes, lack faces or are gone.
UNREADABLE = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
)


def decode_face(record: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode one record.

    Args:
        record: string[], as `data.records.encode_face` gives it.
        size: Width and height of the crop.

    Returns:
        The crop, uint8[size, size, 3], and the label, int64[]: 1 fake, 0 real, -1 unlabelled.
    """
    parsed = tf.io.parse_single_example(
        record,
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "label": tf.io.FixedLenFeature([], tf.int64),
        },
    )
    crop = tf.ensure_shape(tf.io.decode_png(parsed["image/encoded"], channels=3), (size, size, 3))
    return crop, parsed["label"]


def read_label(record: tf.Tensor) -> tf.Tensor:
    """Read the label of a record, int64[], and leave the picture as it is."""
    return tf.io.parse_single_example(record, {"label": tf.io.FixedLenFeature([], tf.int64)})[
        "label"
    ]
