"""`vllama run`: a chat in the terminal. Only HTTP to the server, and nothing of it is imported before it is called."""
