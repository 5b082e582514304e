"""
The flights as a service: start runs from a browser, from a shell or from code, and watch them.

    make service                  # or: pip install "odibi_async[demo,fastapi]" uvicorn; python examples/service.py

Then open http://127.0.0.1:8000/, or:

    curl -d '{"targets": ["report"]}' -H 'Content-Type: application/json' 'http://127.0.0.1:8000/flights/runs?wait=60'

What runs have done is kept in the directory `flights_journal`: kill the server in the middle of a run, start it again,
and resume the run.
"""

from __future__ import annotations

import argparse
import os
import secrets
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from flights import given, pipeline

from odibi_async import Limits, Runner
from odibi_async.integrations.fastapi import Served, pipeline_router

TOKEN = os.environ.get("FLIGHTS_TOKEN", "")
bearer = HTTPBearer(auto_error=False)


async def require_token(sent: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
    """Lets in whoever sends the token of the environment variable FLIGHTS_TOKEN; everybody, where there is none."""
    if TOKEN and (sent is None or not secrets.compare_digest(sent.credentials.encode(), TOKEN.encode())):
        raise HTTPException(401, "The token of this service is needed.", headers={"WWW-Authenticate": "Bearer"})


def app_of(journal: str) -> FastAPI:
    """The app: one pipeline, whose files and whose directory of airports the service gives itself."""
    runner = Runner(journal=journal, limits=Limits(threads=4), drain=10.0)
    flights = Served(
        pipeline, given=given, timeout=300.0, description="What made New York late in 2013? 336,776 flights, ranked."
    )
    app = FastAPI(title="Flights", lifespan=runner.lifespan)
    app.include_router(pipeline_router(runner, {"flights": flights}, auth=require_token, story=True))
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description="The flights as a service.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--journal", default="flights_journal", help="a directory, or a postgresql:// URL")
    options = parser.parse_args()
    if options.host != "127.0.0.1" and not TOKEN:
        raise SystemExit("Set FLIGHTS_TOKEN: without a token, this service listens on 127.0.0.1 only.")
    print(f"The live page: http://{options.host}:{options.port}/")
    uvicorn.run(app_of(options.journal), host=options.host, port=options.port, timeout_graceful_shutdown=10)


if __name__ == "__main__":
    main()
