"""`vllama bench`: what one model gives through the endpoint, measured as a client would see it."""
