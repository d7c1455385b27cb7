"""Where arrays live: one module per array library behind the interface of `base.py`."""

import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on import it lists the optional kernels that it lacks
