"""The OpenAI-compatible face: requests, what is passed on to the runtime, what comes back."""
