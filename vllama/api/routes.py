"""The inference routes of vLLM that are reachable through vllama, and no other. What is not written here is 404."""

# The model is the top-level `model` of a JSON body.
JSON_PATHS = (
    "/v1/chat/completions",
    "/v1/chat/completions/batch",
    "/v1/chat/completions/render",
    "/v1/chat/completions/derender",
    "/v1/completions",
    "/v1/completions/render",
    "/v1/completions/derender",
    "/v1/responses",
    "/v1/responses/render",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/messages/render",
    "/inference/v1/generate",
    "/generative_scoring",
    "/tokenize",
    "/detokenize",
    "/v1/embeddings",
    "/v2/embed",
    "/pooling",
    "/classify",
    "/v1/score",
    "/score",
    "/v1/rerank",
    "/v2/rerank",
    "/rerank",
)
# The model is a field of a form, which may stand behind the file.
FORM_PATHS = ("/v1/audio/transcriptions", "/v1/audio/translations")
# No model: the engine that made the response is found by its id.
RESPONSES = "/v1/responses"
RESPONSE = "/v1/responses/{response_id}"
RESPONSE_CANCEL = "/v1/responses/{response_id}/cancel"
# A websocket: the model is in the query, or in the first `session.update`.
REALTIME = "/v1/realtime"
