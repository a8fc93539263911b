"""Client of TensorFlow Serving over REST and gRPC; imports no TensorFlow.

The public names are those of `__init__.pyi`; each is imported when it is first used, since
`metadata` and `signatures` are read without a server, too.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
