"""Several processes train as one: started here, by torchrun, or by Ray."""
