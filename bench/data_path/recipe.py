"""The usual recipe for a proxy: FastAPI takes the request, httpx asks the backend, StreamingResponse passes its bytes on.

python recipe.py PORT BACKEND_URL
"""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import Response, StreamingResponse

PORT, BACKEND = int(sys.argv[1]), sys.argv[2]
MODELS = {"tiny/chat": BACKEND}
KEPT = ("content-type",)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(timeout=None, limits=limits, trust_env=False) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/{path:path}")
async def forward(path: str, request: Request) -> Response:
    body = await request.body()
    asked = json.loads(body)
    backend = MODELS.get(asked.get("model"))
    if backend is None:
        raise HTTPException(404, "no such model")
    client: httpx.AsyncClient = request.app.state.client
    headers = {"content-type": request.headers.get("content-type", "application/json")}
    upstream = client.build_request("POST", f"{backend}/v1/{path}", content=body, headers=headers)
    answer = await client.send(upstream, stream=True)
    kept = {name: answer.headers[name] for name in KEPT if name in answer.headers}

    async def blocks() -> AsyncIterator[bytes]:
        try:
            async for block in answer.aiter_raw():
                yield block
        finally:
            await answer.aclose()

    return StreamingResponse(blocks(), status_code=answer.status_code, headers=kept)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning", access_log=False)
