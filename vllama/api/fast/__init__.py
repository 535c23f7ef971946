"""The quick way of the data path: bytes from the client's connection to the engine's and back, no task and no ASGI between."""
