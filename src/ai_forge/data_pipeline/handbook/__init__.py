"""An agent's rule folder to training pairs, preference pairs and compliance probes."""
