"""The service's routes, a router a file; `create_app` includes them. Each endpoint says by `allow` what it needs."""
