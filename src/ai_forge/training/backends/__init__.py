"""Where arrays live: one module per array library behind the interface of `base.py`."""
