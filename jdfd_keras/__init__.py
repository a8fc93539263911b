"""Joint DeepFake Detector: a Keras 3 detector of manipulated faces in videos.

The public names are those of `__init__.pyi`; each is imported when it is first used, so that
`import jdfd_keras` costs nothing.
"""

import lazy_loader

__version__ = "0.2.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
