"""Which handler answers a path: a radix tree, a plain ASGI router, and the same tree under Starlette and FastAPI."""
