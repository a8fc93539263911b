"""TensorFlow without its notes on stderr, which are for those who build it."""

import os
import sys
import tempfile


def import_tensorflow() -> str:
    """Import TensorFlow and say what it runs on.

    Its notes on a missing CUDA driver are written before its log level counts (2.21.0); they are
    held back, and shown only if the import fails.
    """
    with tempfile.TemporaryFile() as notes:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow as tf

            devices = tf.config.list_physical_devices("GPU")
        except BaseException:
            notes.seek(0)
            os.write(stderr, notes.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    return f"TensorFlow {tf.__version__} on {f'{len(devices)} GPU' if devices else 'the CPU'}"
