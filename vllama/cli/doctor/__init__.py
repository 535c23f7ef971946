"""`vllama doctor`: looks at this machine as a server would find it, whether one runs or not."""
