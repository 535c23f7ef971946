"""`vllama top`: a live view in the terminal. The only part that imports Textual, and only when it is called."""
